"""Dead letters -> a red check on the first dataset of each domain's ClickHouse layer, green again when none is left."""

import time
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from data_platform.assets.standing import NO_DEAD_LETTERS, watched_keys
from data_platform.catalog import Catalog, load_catalog
from data_platform.clients import aws
from data_platform.loading.queues import DomainQueue
from data_platform.resources.settings import SettingsResource
from data_platform.sensors.cursors import SensorCursor, read_cursor
from data_platform.sensors.depths import ask_depths

NAME = "load_dead_letters"
INTERVAL_S = 60
DEADLINE_S = 40.0  # Dagster gives a tick 60 s
NOT_COUNTED = "the dead letters of %s were not counted, which the next tick does: %s"


class Cursor(SensorCursor):
    """Dead letters by domain as they were reported last."""

    v: Literal[1] = 1
    dead: dict[str, int] = Field(default_factory=dict[str, int])


def dead_letter_checks(catalog: Catalog) -> list[dg.AssetChecksDefinition]:
    """A check a domain; run by hand it asks the queue, the sensor answers it every minute."""

    def check_of(domain: str, key: dg.AssetKey) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=key, name=NO_DEAD_LETTERS, description=f"No load of the domain {domain} was given up.")
        def check(platform: SettingsResource) -> dg.AssetCheckResult:
            settings = platform.load()
            return _result(domain, DomainQueue.open(aws.sqs(settings), settings, domain).depth().dead)

        return check

    return [check_of(domain, key) for domain, key in watched_keys(catalog).items()]


def dead_letter_sensor(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor that keeps the checks up to date; it reports changes only."""

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=INTERVAL_S,
        default_status=status,
        description="Turns no_dead_letters red while a domain's dead-letter queue holds messages.",
    )
    def tick(context: dg.SensorEvaluationContext, platform: SettingsResource) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        settings = platform.load()
        watched = watched_keys(load_catalog(settings.catalog))
        before = read_cursor(context.cursor, Cursor()).dead
        counts: dict[str, int] = {}
        for domain, depth in ask_depths(settings, watched, deadline):
            if isinstance(depth, str):
                context.log.warning(NOT_COUNTED, domain, depth)
            else:
                counts[domain] = depth.dead
        events = [
            dg.AssetCheckEvaluation(
                asset_key=watched[domain],
                check_name=NO_DEAD_LETTERS,
                passed=count == 0,
                description=sentence(domain, count),
                metadata={"dead_letters": dg.MetadataValue.int(count)},
                severity=dg.AssetCheckSeverity.ERROR,
            )
            for domain, count in counts.items()
            if before.get(domain) != count
        ]
        known = {domain: count for domain, count in (before | counts).items() if domain in watched}
        told = ", ".join(f"{domain}: {count}" for domain, count in known.items() if count) or "no dead letters"
        return dg.SensorResult(
            asset_events=events, cursor=Cursor(dead=known).model_dump_json(), skip_reason=dg.SkipReason(told)
        )

    return tick


def sentence(domain: str, count: int) -> str:
    """What a person needs to know of a domain's dead letters."""
    if not count:
        return f"No load of the domain {domain} was given up."
    files = "1 file" if count == 1 else f"{count:,} files"
    return (
        f"{files} of the domain {domain} could not be loaded and are not tried any more; their rows are missing from "
        f"ClickHouse. 1. Each with its reason and what to do: data-platform dlq list --domain {domain}. 2. Remove the "
        f"cause, or drop those for which it says so. 3. Have what is left loaded: "
        f"data-platform dlq replay --domain {domain}"
    )


def _result(domain: str, count: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=count == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence(domain, count),
        metadata={"dead_letters": count},
    )
