"""Daily jobs: every dataset of a domain that has the same days runs in one job, a run a day.

Snapshots of a domain are a job of their own; the summaries of all services are one. When they run is schedules.py's.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from data_platform.analytics.summaries import METRICS
from data_platform.assets.keys import DATASET_TAG, partitions_of, stage_key, stages_of, summary_key
from data_platform.assets.outcomes import stop_retries
from data_platform.assets.repair import Repair
from data_platform.assets.standing import dead_letter_keys, standing_keys
from data_platform.catalog import Catalog
from data_platform.catalog.models import Dataset, Mode

DATASETS_HOUR = 1  # UTC: the day before is complete, and the summaries at 02:00 find it loaded
SUMMARIES_HOUR = 2
SUMMARIES = "summaries"
STANDING_JOB = "standing_checks"
# What define_asset_job and @schedule return: Dagster exports no name for the one, and types the other as a union.
AssetJob = Any
Schedule = Any
# A run of the platform needs one process and waits for other engines most of its time.
RUN_TAGS = {"dagster/priority": "0"}


@dataclass(frozen=True)
class DailyJob:
    """A job and the UTC hour of its schedule; `partitioned` jobs take the day before."""

    job: AssetJob
    hour: int
    partitioned: bool
    datasets: tuple[Dataset, ...] = ()


def job_names(catalog: Catalog) -> dict[str, str]:
    """By dataset key, the name of the daily job it runs in. Reads the whole catalogue: ask once for many datasets."""
    return {dataset.key: name for name, datasets in _groups(catalog).items() for dataset in datasets}


def job_name_of(catalog: Catalog, dataset: Dataset) -> str:
    """Name of the daily job a dataset runs in."""
    return job_names(catalog)[dataset.key]


def schedule_name(job: str) -> str:
    """Name of the schedule of the job called `job`."""
    return f"{job}_schedule"


def repairs(catalog: Catalog, lookback: int) -> dict[str, Repair]:
    """By dataset key, the schedule that makes a failed day again; `lookback`: how many days back it looks."""
    return {key: Repair(schedule_name(name), DATASETS_HOUR, lookback) for key, name in job_names(catalog).items()}


def daily_names(catalog: Catalog) -> set[str]:
    """Names of the daily jobs of datasets."""
    return set(_groups(catalog))


def daily_jobs(catalog: Catalog) -> list[DailyJob]:
    """All daily jobs: datasets by domain and days, snapshots by domain, summaries."""
    jobs: list[DailyJob] = []
    for name, datasets in _groups(catalog).items():
        partitions = partitions_of(datasets[0])
        keys = [stage_key(stage, dataset) for dataset in datasets for stage in stages_of(dataset)]
        job = dg.define_asset_job(
            name,
            # The standing checks have a job of their own: here they would be skipped, and shown as failed, whenever
            # one day fails.
            selection=dg.AssetSelection.assets(*keys)
            - dg.AssetSelection.checks(*standing_keys(catalog), *dead_letter_keys(catalog)),
            description=f"All layers of {', '.join(dataset.key for dataset in datasets)}.",
            tags={**RUN_TAGS, "domain": datasets[0].domain, **_dataset_tag(datasets)},
            hooks={stop_retries},
        )
        jobs.append(DailyJob(job, DATASETS_HOUR, partitions is not None, tuple(datasets)))
    if catalog.services:
        keys = [summary_key(service, metric) for service in catalog.services.values() for metric in METRICS]
        job = dg.define_asset_job(
            SUMMARIES,
            selection=dg.AssetSelection.assets(*keys),
            description="The product metrics of every service.",
            tags=RUN_TAGS,
            hooks={stop_retries},
        )
        jobs.append(DailyJob(job, SUMMARIES_HOUR, partitioned=False))
    return jobs


def _dataset_tag(datasets: Sequence[Dataset]) -> dict[str, str]:
    """Runs of a job with a single dataset are over that one, from wherever they are launched."""
    return {DATASET_TAG: datasets[0].key} if len(datasets) == 1 else {}


def standing_job(catalog: Catalog) -> AssetJob:
    """The job that asks every standing check."""
    return dg.define_asset_job(
        STANDING_JOB,
        selection=dg.AssetSelection.checks(*standing_keys(catalog)),
        description="Is the newest expected day of every table there, is no partition left failed.",
        tags=RUN_TAGS,
        hooks={stop_retries},
    )


def _groups(catalog: Catalog) -> dict[str, list[Dataset]]:
    """Datasets that can share a run (same domain, same days), by job name."""
    by_days: dict[tuple[str, str], list[Dataset]] = defaultdict(list)
    for dataset in catalog.datasets.values():
        days = "" if dataset.mode is Mode.SNAPSHOT else f"{dataset.start}..{dataset.end or ''}"
        by_days[dataset.domain, days].append(dataset)
    daily_groups: dict[str, int] = defaultdict(int)
    for domain, days in by_days:
        daily_groups[domain] += bool(days)
    named: dict[str, list[Dataset]] = {}
    for (domain, days), datasets in sorted(by_days.items()):
        if not days:
            named[f"{domain}_snapshots"] = datasets
        elif daily_groups[domain] == 1:
            named[f"{domain}_daily"] = datasets
        else:
            # Datasets with other first or last days cannot share a run: Dagster runs one set of days at a time.
            named[f"{domain}_daily_{datasets[0].name}"] = datasets
    return named
