"""The one place that assembles the code location: assets, jobs, schedules, sensors, resources."""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from data_platform.assets.datasets import dataset_assets
from data_platform.assets.freshness import with_freshness
from data_platform.assets.sources import source_specs
from data_platform.assets.standing import standing_checks
from data_platform.assets.summaries import summary_assets
from data_platform.assets.unload_requests import unload_requests_spec
from data_platform.assets.user_statistics import user_statistics_assets, user_statistics_checks
from data_platform.catalog import Catalog, load_catalog
from data_platform.jobs.automation import NAME as AUTOMATION
from data_platform.jobs.automation import after_new_events, automation_sensor, with_automation
from data_platform.jobs.daily import daily_jobs, repairs, standing_job
from data_platform.jobs.loading import catch_up_job, reconciliation_job
from data_platform.jobs.schedules import AllowList, daily_schedules, standing_schedule
from data_platform.jobs.unload_requests import unload_request_job
from data_platform.provisioning.routes import log_prefixes
from data_platform.resources.settings import SettingsResource
from data_platform.sensors.dlq import NAME as DEAD_LETTERS
from data_platform.sensors.dlq import dead_letter_checks, dead_letter_sensor
from data_platform.sensors.event_logs import NAME as EVENT_LOGS
from data_platform.sensors.event_logs import event_logs_sensor
from data_platform.sensors.kafka_lag import NAME as KAFKA_LAG
from data_platform.sensors.kafka_lag import kafka_lag_sensor
from data_platform.sensors.loading import NAME as LOAD_QUEUES
from data_platform.sensors.loading import load_queue_sensor
from data_platform.sensors.reconciliation import NAME as RECONCILIATION
from data_platform.sensors.reconciliation import reconciliation_schedule
from data_platform.sensors.restated import NAME as SOURCE_CHANGES
from data_platform.sensors.restated import restated_sensor
from data_platform.sensors.run_failure import NAME as ALERTS
from data_platform.sensors.run_failure import alert_sensor
from data_platform.sensors.unload_requests import NAME as UNLOAD_REQUESTS
from data_platform.sensors.unload_requests import unload_requests_sensor
from data_platform.sensors.user_statistics import NAME as STATISTICS_DROPS
from data_platform.sensors.user_statistics import user_statistics_job, user_statistics_sensor
from data_platform.settings import Settings, load_settings


def build_defs(
    settings: Settings | None = None, *, catalog: Catalog | None = None, overrides: Mapping[str, Any] | None = None
) -> dg.Definitions:
    """Definitions of everything in the catalogue of `settings`. `overrides` replaces resources by name.

    Raises CatalogError with every mistake when the catalogue is wrong.
    """
    # Dagster 1.13 copies a sensor that has a job through its own beta parameter; nobody here sets it. No other warning
    # is silenced.
    warnings.filterwarnings(
        "ignore", message="Parameter `owners` of initializer `SensorDefinition", category=dg.BetaWarning
    )
    settings = settings or load_settings()
    catalog = catalog or load_catalog(settings.catalog)
    datasets = list(catalog.datasets.values())
    allowed = AllowList(settings)
    jobs = daily_jobs(catalog)
    repaired = repairs(catalog, settings.lookback_days)
    standing = standing_job(catalog)
    statistics_job = user_statistics_job()
    catch_up, reconciliation = catch_up_job(), reconciliation_job()
    resources: dict[str, Any] = {"platform": SettingsResource(), **(overrides or {})}
    schedules = [
        *daily_schedules(jobs, allowed, lookback=settings.lookback_days),
        standing_schedule(standing, allowed),
        reconciliation_schedule(reconciliation, allowed.schedule(RECONCILIATION)),
    ]
    sensors = [
        automation_sensor(allowed.sensor(AUTOMATION)),
        alert_sensor(catalog, allowed.sensor(ALERTS)),
        kafka_lag_sensor(allowed.sensor(KAFKA_LAG)),
        load_queue_sensor(catch_up, allowed.sensor(LOAD_QUEUES)),
        dead_letter_sensor(allowed.sensor(DEAD_LETTERS)),
        restated_sensor(
            catalog,
            allowed.sensor(SOURCE_CHANGES),
            lookback=settings.lookback_days,
            jobs=allowed.jobs(job for job in jobs if job.partitioned),
        ),
        unload_requests_sensor(start=allowed.sensor(UNLOAD_REQUESTS) is dg.DefaultSensorStatus.RUNNING),
        user_statistics_sensor(statistics_job, allowed.sensor(STATISTICS_DROPS)),
        *([event_logs_sensor(catalog, allowed.sensor(EVENT_LOGS), jobs=jobs)] if log_prefixes(catalog) else []),
    ]
    allowed.refuse_unknown({each.name for each in (*schedules, *sensors)})
    assets = [
        *source_specs(datasets),
        *(dataset_assets(dataset, repaired[dataset.key]) for dataset in datasets),
        *(summary_assets(service, settings) for service in catalog.services.values()),
        *user_statistics_assets(catalog.statistics),
        unload_requests_spec(),
    ]
    automated = with_automation(assets, {"summaries": after_new_events("30 * * * *")})
    return dg.Definitions(
        assets=with_freshness(automated, catalog, default_hours=settings.freshness_hours),
        asset_checks=[*user_statistics_checks(), *standing_checks(catalog), *dead_letter_checks(catalog)],
        jobs=[*(job.job for job in jobs), standing, statistics_job, unload_request_job, catch_up, reconciliation],
        schedules=schedules,
        sensors=sensors,
        resources=resources,
        # Small operations that wait for other engines: a process each would cost more than the work.
        executor=dg.in_process_executor,
    )
