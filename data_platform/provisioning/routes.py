"""Which events go to which queue: one route per domain of the catalogue, CSV drops, manifests of UNLOAD. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_platform.catalog import Catalog
from data_platform.catalog import keys as s3_keys
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
    return (*domains, statistics_route(settings), unload_route(settings))


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
    name = f"{settings.env}-user-statistics"
    return Route(
        rule=f"{name}-rule",
        queue=f"{name}-queue",
        dlq=f"{name}-dlq",
        description="CSV drops to the user statistics queue",
        pattern={
            "source": ["aws.s3"],
            "detail-type": ["Object Created"],
            "detail": {
                "bucket": {"name": [settings.raw_bucket]},
                "object": {"key": [{"wildcard": f"{INCOMING_PREFIX}*{suffix}"} for suffix in INCOMING_SUFFIXES]},
            },
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
