"""Which events go to which queue: a route per domain of the catalogue, CSV drops, manifests of UNLOAD, logs. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_platform.catalog import Catalog
from data_platform.catalog import keys as s3_keys
from data_platform.catalog.models import OtelLogsSource
from data_platform.settings import Settings
from data_platform.unload.execution import RESULTS_PREFIX
from data_platform.unload.manifest import MANIFEST_NAME
from data_platform.unload.manifest_events import queue_name

INCOMING_PREFIX = "incoming/"
INCOMING_SUFFIXES = (".csv", ".csv.gz")


@dataclass(frozen=True)
class Route:
    """S3 events of one bucket that match `pattern` -> rule -> (transformer) -> queue with its dead-letter queue."""

    rule: str
    queue: str
    dlq: str
    description: str
    pattern: Mapping[str, Any]
    transformer: Mapping[str, Any]


def routes(settings: Settings, catalog: Catalog) -> tuple[Route, ...]:
    """All routes of the environment."""
    domains = (domain_route(settings, name) for name in sorted(catalog.domains))
    logs = (event_logs_route(settings, catalog),) if log_prefixes(catalog) else ()
    return (*domains, statistics_route(settings), unload_route(settings), *logs)


def domain_route(settings: Settings, domain: str) -> Route:
    """Curated Parquet of one domain -> its load queue."""
    return Route(
        rule=s3_keys.rule_name(settings.env, domain),
        queue=s3_keys.queue_name(settings.env, domain),
        dlq=s3_keys.dlq_name(settings.env, domain),
        description=f"Curated objects of {domain} to its load queue",
        pattern=s3_keys.event_pattern(settings.curated_bucket, domain),
        transformer=s3_keys.input_transformer(),
    )


def statistics_route(settings: Settings) -> Route:
    """CSV drops of the raw bucket -> the user statistics queue."""
    drops = [{"wildcard": f"{INCOMING_PREFIX}*{suffix}"} for suffix in INCOMING_SUFFIXES]
    return _of_raw_bucket(settings, "user-statistics", "CSV drops to the user statistics queue", drops)


def log_prefixes(catalog: Catalog) -> list[str]:
    """The prefixes in the raw bucket under which the OpenTelemetry logs of any dataset lie."""
    sources = (dataset.source for dataset in catalog.datasets.values())
    return sorted({f"{source.prefix}/" for source in sources if isinstance(source, OtelLogsSource)})


def event_logs_route(settings: Settings, catalog: Catalog) -> Route:
    """OpenTelemetry logs in the raw bucket -> the queue of the sensor that takes late ones in."""
    logs = [{"prefix": prefix} for prefix in log_prefixes(catalog)]
    return _of_raw_bucket(settings, "event-logs", "OpenTelemetry logs to the event logs queue", logs)


def _of_raw_bucket(settings: Settings, what: str, description: str, keys: list[dict[str, str]]) -> Route:
    name = f"{settings.env}-{what}"
    return Route(
        rule=f"{name}-rule",
        queue=f"{name}-queue",
        dlq=f"{name}-dlq",
        description=description,
        pattern={
            "source": ["aws.s3"],
            "detail-type": ["Object Created"],
            "detail": {"bucket": {"name": [settings.raw_bucket]}, "object": {"key": keys}},
        },
        transformer=s3_keys.input_transformer(),
    )


def unload_route(settings: Settings) -> Route:
    """Manifests of unloaded requests -> the queue that wakes the reconciler."""
    name = f"{settings.env}-unload"
    return Route(
        rule=f"{name}-rule",
        queue=queue_name(settings.env),
        dlq=f"{name}-dlq",
        description="Manifests of UNLOAD to the reconciler",
        pattern={
            "source": ["aws.s3"],
            "detail-type": ["Object Created"],
            "detail": {
                "bucket": {"name": [settings.unload_bucket]},
                "object": {"key": [{"wildcard": f"{RESULTS_PREFIX}/*/{MANIFEST_NAME}"}]},
            },
        },
        transformer=s3_keys.input_transformer(),
    )
