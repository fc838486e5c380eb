"""The checks that stand by themselves, one operation a domain: the latest expected day is there, nothing left failed.

They belong to no run that makes data: a day that nobody asked for has no run that could fail.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from data_platform.assets.checks import SEVERITY, metadata_of, told
from data_platform.assets.keys import Stage, partitions_of, stage_key, stages_of
from data_platform.assets.outcomes import read_outcome
from data_platform.catalog import Catalog
from data_platform.catalog.models import Dataset
from data_platform.clients import clickhouse
from data_platform.quality.finding import Finding
from data_platform.quality.standing import (
    LATEST,
    NONE_FAILED,
    Left,
    expected_days,
    judge_failed,
    judge_latest,
    registered_days,
)
from data_platform.resources.settings import SettingsResource

RUN_ENDED = "its run's process ended before it could say why"
RUN_ENDED_STEP = "See the end of the run's log where that happens again: too little memory, or a machine that went away"
NO_DEAD_LETTERS = "no_dead_letters"
DESCRIPTIONS = {
    LATEST: "The newest day that is due by the dataset's freshness is in ClickHouse, whatever was backfilled since.",
    NONE_FAILED: "No partition of any layer is left in the state failed.",
}


def standing_checks(catalog: Catalog) -> list[dg.AssetChecksDefinition]:
    """The standing checks of every domain that has datasets."""
    by_domain: dict[str, list[Dataset]] = {}
    for dataset in catalog.datasets.values():
        by_domain.setdefault(dataset.domain, []).append(dataset)
    return [_of_domain(domain, datasets) for domain, datasets in by_domain.items()]


def dead_letter_keys(catalog: Catalog) -> list[dg.AssetCheckKey]:
    """Keys of the checks on the domains' dead letters (sensors/dlq.py answers them)."""
    return [dg.AssetCheckKey(key, NO_DEAD_LETTERS) for key in watched_keys(catalog).values()]


def watched_keys(catalog: Catalog) -> dict[str, dg.AssetKey]:
    """By domain, the asset that shows its dead letters."""
    return {
        domain: stage_key(Stage.CLICKHOUSE, catalog.in_domain(domain)[0])
        for domain in catalog.domains
        if catalog.in_domain(domain)
    }


def standing_keys(catalog: Catalog) -> list[dg.AssetCheckKey]:
    """Keys of all standing checks."""
    return [key for dataset in catalog.datasets.values() for key in _keys(dataset)]


def _keys(dataset: Dataset) -> list[dg.AssetCheckKey]:
    return [dg.AssetCheckKey(stage_key(Stage.CLICKHOUSE, dataset), name) for name in DESCRIPTIONS]


def _of_domain(domain: str, datasets: Sequence[Dataset]) -> dg.AssetChecksDefinition:
    by_key: Mapping[dg.AssetKey, Dataset] = {stage_key(Stage.CLICKHOUSE, dataset): dataset for dataset in datasets}

    @dg.multi_asset_check(
        name=f"{domain}__standing_checks",
        specs=[
            dg.AssetCheckSpec(name, asset=key, description=description)
            for key in by_key
            for name, description in DESCRIPTIONS.items()
        ],
        can_subset=True,
        op_tags={"domain": domain},
    )
    def ask(context: dg.AssetCheckExecutionContext, platform: SettingsResource) -> Iterator[dg.AssetCheckResult]:
        settings, now = platform.load(), datetime.now(UTC)
        selected = context.selected_asset_check_keys
        wanted = {key: dataset for key, dataset in by_key.items() if any(each.asset_key == key for each in selected)}
        expected = {
            key: expected_days(dataset, now, default_hours=settings.freshness_hours) for key, dataset in wanted.items()
        }
        client = clickhouse.connect(settings)
        try:
            registered = registered_days(client, [day for days in expected.values() for day in days])
        finally:
            client.close()
        for key, dataset in wanted.items():
            if dg.AssetCheckKey(key, LATEST) in selected:
                yield _result(key, judge_latest(dataset, expected[key], registered))
            if dg.AssetCheckKey(key, NONE_FAILED) in selected:
                yield _result(key, judge_failed(dataset, failed_partitions(context.instance, dataset)))

    return ask


def failed_partitions(instance: dg.DagsterInstance, dataset: Dataset) -> dict[str, Left]:
    """What is known of every partition left failed, by day (of a snapshot: none, it has no partitions)."""
    partitions = partitions_of(dataset)
    if partitions is None:
        return {}
    failed: dict[str, Left] = {}
    days = partitions.get_partition_keys()
    for stage in reversed(stages_of(dataset)):
        key = stage_key(stage, dataset)
        found = instance.get_status_by_partition(key, days, partitions) or {}
        for day, status in found.items():
            if status is not None and status.value == "FAILED":
                failed[day] = Left(stage.value, RUN_ENDED, RUN_ENDED_STEP)
    for stage in stages_of(dataset) if failed else ():
        _add_reasons(instance, stage_key(stage, dataset), stage, failed)
    return failed


def _add_reasons(instance: dg.DagsterInstance, key: dg.AssetKey, stage: Stage, failed: dict[str, Left]) -> None:
    """Put in what was written down; the newest observation of a partition comes first."""
    told: set[str] = set()
    filters = dg.AssetRecordsFilter(asset_key=key, asset_partitions=sorted(failed)[-50:])
    for record in instance.fetch_observations(filters, limit=200).records:
        event = record.asset_observation
        if event is None or event.partition is None or event.partition in told:
            continue
        outcome = read_outcome(event)
        if outcome is not None and failed[event.partition].layer == stage.value:
            told.add(event.partition)
            failed[event.partition] = Left(stage.value, outcome.reason, outcome.next_step)


def _result(key: dg.AssetKey, finding: Finding) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=finding.check,
        passed=finding.passed,
        severity=SEVERITY[finding.weight],
        description=told(finding),
        metadata=metadata_of(finding),
    )
