"""Dead letters -> a red check on the first dataset of each domain's ClickHouse layer, green again when none is left."""

from typing import Any

import dagster as dg

from data_platform.assets.standing import NO_DEAD_LETTERS, watched_keys
from data_platform.catalog import Catalog, load_catalog
from data_platform.clients import aws
from data_platform.clients.classify import classify
from data_platform.errors import Fault
from data_platform.loading.queues import DomainQueue
from data_platform.resources.settings import SettingsResource

NAME = "load_dead_letters"
INTERVAL_S = 60


def dead_letter_checks(catalog: Catalog) -> list[dg.AssetChecksDefinition]:
    """A check a domain; run by hand it asks the queue, the sensor answers it every minute."""

    def check_of(domain: str, key: dg.AssetKey) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=key, name=NO_DEAD_LETTERS, description=f"No load of the domain {domain} was given up.")
        def check(platform: SettingsResource) -> dg.AssetCheckResult:
            settings = platform.load()
            return _result(DomainQueue.open(aws.sqs(settings), settings, domain).depth().dead)

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
        settings = platform.load()
        catalog = load_catalog(settings.catalog)
        sqs = aws.sqs(settings)
        counts: dict[str, int] = {}
        for domain in watched_keys(catalog):
            try:
                counts[domain] = DomainQueue.open(sqs, settings, domain).depth().dead
            except Exception as error:
                if classify(error) is Fault.UNKNOWN:
                    raise
                context.log.warning("the dead letters of %s could not be counted: %s", domain, error)
        text = ",".join(f"{domain}={count}" for domain, count in sorted(counts.items()))
        before = dict(part.split("=") for part in (context.cursor or "").split(",") if part)
        events = [
            dg.AssetCheckEvaluation(
                asset_key=key,
                check_name=NO_DEAD_LETTERS,
                passed=counts[domain] == 0,
                metadata={"dead_letters": dg.MetadataValue.int(counts[domain])},
                severity=dg.AssetCheckSeverity.ERROR,
            )
            for domain, key in watched_keys(catalog).items()
            if domain in counts and before.get(domain) != str(counts[domain])
        ]
        return dg.SensorResult(asset_events=events, cursor=text, skip_reason=dg.SkipReason(text or "no domains"))

    return tick


def _result(count: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=count == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"dead_letters": count, "next step": "data-platform dlq list"},
    )
