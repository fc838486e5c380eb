"""The page's second part: what stands beside a day, a check or a tick in Dagster, and what other tools show."""

from collections.abc import Callable, Iterator

import dagster as dg
from pydantic import SecretStr

from data_platform.alerts.routes import read_routes
from data_platform.assets.checks import told
from data_platform.assets.datasets import failure_of
from data_platform.assets.outcomes import outcome_of
from data_platform.assets.standing import DESCRIPTIONS as STANDING
from data_platform.errors import PlatformError
from data_platform.jobs.backfill import BackfillResult, require_success
from data_platform.jobs.daily import repairs
from data_platform.jobs.schedules import AllowList, nothing_needed
from data_platform.loading.errors import CODES
from data_platform.provisioning.alarms import alarm_requests
from data_platform.provisioning.metrics_alarms import metrics_alarm_requests
from data_platform.provisioning.queue_alarms import queue_alarm_requests
from data_platform.provisioning.unload_alarms import unload_alarm_requests
from data_platform.quality import layers
from data_platform.quality.rules import rules_of
from data_platform.sensors import dlq, event_logs, kafka_lag, loading, restated, run_failure, user_statistics
from data_platform.settings import Settings
from tests.alerts.kinds import CATALOG, ERRORS, LONG_AFTER, LOOKBACK, NOW, ORDERS, broken_layers, findings

Shown = Iterator[tuple[str, list[str]]]


def days() -> Shown:
    """Beside a day: the asset's tab Events."""
    repair = repairs(CATALOG, LOOKBACK)[ORDERS.key]
    key = dg.AssetKey(["unload", "market", "orders"])
    for what, error in ERRORS.items():
        shown = outcome_of(error).observation(key, "2024-03-09", repair, NOW).metadata
        yield what, [f"{name}: {value.value}" for name, value in shown.items()]
    for what in ("ClickHouse is away", "held back"):
        shown = outcome_of(ERRORS[what]).observation(key, "2024-03-09", repair, LONG_AFTER).metadata
        yield f"{what}, a day of long ago", [f"{name}: {value.value}" for name, value in shown.items()]


def checks() -> Shown:
    """Beside a check."""
    for finding in (*broken_layers(), *findings()):
        assert not finding.passed
        yield finding.check, [told(finding)]
    yield dlq.NO_DEAD_LETTERS, [dlq.sentence("market", 3)]
    descriptions = {**layers.DESCRIPTIONS, **STANDING, **{rule.name: rule.description for rule in rules_of(ORDERS)}}
    for name, text in descriptions.items():
        yield f"what {name} says of itself", [text]


def ticks() -> Shown:
    """In the log of a tick: Automation, the sensor, its tick."""
    away = "ClickHouse at ch:8443 was not reached"
    yield dlq.NAME, [dlq.NOT_COUNTED % ("market", away)]
    yield loading.NAME, [loading.NOT_ASKED % ("market", away)]
    yield kafka_lag.NAME, [kafka_lag.NOT_ASKED % ("billing", "data-platform.market.orders.loaded")]
    yield event_logs.NAME, [event_logs.NAMES_NO_LOG % ("5a1c", "prod-event-logs-queue", "it is not JSON")]
    yield restated.NAME, [restated.NOT_COMPARED % ("market/orders", "Redshift has no free connection (limit 500)")]
    yield run_failure.NAME, [run_failure.NOT_SENT % ("[prod] market/orders: failed", "slack", "Slack answered 503")]
    url = "s3://drops/incoming/day.csv"
    yield (
        user_statistics.NAME,
        [
            user_statistics.NAMES_NO_FILE % ("5a1c", "prod-user-statistics-queue", "it is not JSON"),
            user_statistics.GIVEN_UP % (url, url, url),
        ],
    )


def runs() -> Shown:
    """Where a run or a command ends: the run's page, the terminal."""
    away, nulls = outcome_of(ERRORS["ClickHouse is away"]), outcome_of(ERRORS["the data do not fit"])
    one, several = {"2024-03-09": nulls}, {"2024-03-07": away, "2024-03-09": nulls}
    repair = repairs(CATALOG, LOOKBACK)[ORDERS.key]
    yield "a run in which a day failed", failure_of(ORDERS, one, 7, repair, NOW).splitlines()
    yield "a run in which some days failed", failure_of(ORDERS, several, 7, repair, NOW).splitlines()
    failed = BackfillResult("6f1c2a9e", False, failure_of(ORDERS, one, 7, repair, NOW))
    yield "a backfill in which a day failed", _raised(lambda: require_success(failed))
    yield "a schedule that started nothing", [nothing_needed([ORDERS], LOOKBACK)]


def refusals() -> Shown:
    """What ends a tick, a command or the loading of the definitions."""
    secret = SecretStr('{"team:a": {"slak": "x"}}')
    for what, call in {
        "alert routes that are no JSON": lambda: read_routes(Settings(alert_routes=SecretStr("{"))),
        "alert routes with a misspelt channel": lambda: read_routes(Settings(alert_routes=secret)),
        "alert routes without https": lambda: read_routes(
            Settings(alert_routes=SecretStr('{"team:a": {"slack": "ftp://x"}}'))
        ),
        "a schedule that does not exist": lambda: AllowList(Settings(schedules="market_dayly_schedule")).refuse_unknown(
            ["market_daily_schedule", "summaries_schedule"]
        ),
    }.items():
        yield what, _raised(call)


def _raised(call: Callable[[], object]) -> list[str]:
    try:
        call()
    except PlatformError as error:
        return str(error).splitlines()
    raise AssertionError("it was not refused")


def dead_letters() -> Shown:
    """In `data-platform dlq list` and `show`, beside the letter's own reason."""
    for code, facts in CODES.items():
        yield f"{code} {facts.meaning}", [facts.next_step]


def alarms() -> Shown:
    """CloudWatch's, by the SNS topic of DATA_PLATFORM_ALARM_TOPIC."""
    from data_platform.catalog import load_catalog

    settings = Settings(env="prod")
    catalog = load_catalog(settings.catalog)
    for requests in (
        alarm_requests(settings, ["market"]),
        queue_alarm_requests(settings, catalog),
        metrics_alarm_requests(settings),
        unload_alarm_requests(settings),
    ):
        for request in requests:
            yield str(request["AlarmName"]), [str(request["AlarmDescription"])]


PARTS: dict[str, Callable[[], Shown]] = {
    "What stands beside a day in Dagster (Catalog, the asset, tab Events)": days,
    "What stands beside a check in Dagster (Catalog, the asset, tab Checks)": checks,
    "What stands in the log of a sensor's tick in Dagster (Automation, the sensor, its tick)": ticks,
    "What a run, a command or a tick ends with": runs,
    "What ends a tick, a command or the loading of the definitions": refusals,
    "What stands beside a dead letter (data-platform dlq list)": dead_letters,
    "What CloudWatch's alarms say": alarms,
}
