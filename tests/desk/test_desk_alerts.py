"""Alerts: grouped, routed, limited, told once, harmless when nobody listens; by real ticks, against a web server."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from data_platform.alerts.delivery import Delivered, deliver, take_slot
from data_platform.alerts.message import Alert, Problem, group
from data_platform.alerts.routes import Route, read_routes, route_of
from data_platform.assets.keys import Stage, stage_key
from data_platform.assets.outcomes import outcome_of
from data_platform.errors import ConfigurationError, PlatformError, TransientError
from data_platform.jobs.daily import repairs
from data_platform.sensors.run_failure import Cursor, alert_sensor
from data_platform.settings import Settings
from tests.desk.conftest import catalog_of, dataset_of, platform_of
from tests.desk.slack import Slack, settings_of, slack

__all__ = ["slack"]  # the fixture
ORDERS = dataset_of("orders")
CATALOG = catalog_of(ORDERS)
REPAIR = repairs(CATALOG, 7)[ORDERS.key]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


WRONG = "column amount holds 'x'"


def fail_days(
    instance: dg.DagsterInstance, *days: str, reason: str = WRONG, error: type[PlatformError] = PlatformError
) -> str:
    """A run of its own that fails for these days, as a dataset's op does."""

    @dg.op(name="orders")
    def op(context: dg.OpExecutionContext) -> None:
        for day in days:
            outcome = outcome_of(error(reason, hint="correct the data at the source, then materialise the day"))
            context.log_event(outcome.observation(stage_key(Stage.CURATED, ORDERS), day, REPAIR))
        raise dg.Failure("days failed", allow_retries=False)

    @dg.job(logger_defs={})
    def market_daily() -> None:
        op()

    return market_daily.execute_in_process(instance=instance, raise_on_error=False).run_id


def tick(instance: dg.DagsterInstance, settings: Settings, cursor: str | None) -> str:
    sensor = alert_sensor(CATALOG, dg.DefaultSensorStatus.STOPPED)
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"platform": platform_of(settings)}
    ) as context:
        data = sensor.evaluate_tick(context)
    assert data.cursor is not None
    return data.cursor


def start() -> str:
    return Cursor(after=datetime.now(UTC) - timedelta(seconds=5)).model_dump_json()


@pytest.mark.unit
def test_a_backfill_of_many_runs_and_days_is_one_message(
    slack: Slack, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    cursor = start()
    for month in (1, 2, 3):
        fail_days(instance, *(f"2024-0{month}-{day:02}" for day in range(1, 21)))
    tick(instance, settings_of(tmp_path, slack), cursor)
    (text,) = slack.texts
    days = "60 days, 2024-01-01 to 2024-03-20 (not all between)"
    assert f"[prod] market/orders: failed in its layer curated for {days}" in text
    assert "Act now: yes. Nothing tries it again by itself." in text
    assert "Why: column amount holds 'x'" in text
    assert "What to do: Correct the data at the source, then materialise the day." in text
    assert "https://dagster/runs/" in text
    assert "team:market-data, who owns market/orders" in text


@pytest.mark.unit
def test_a_day_that_its_schedule_tries_again_asks_nobody_to_act_and_an_older_one_does(
    slack: Slack, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, slack)
    today = datetime.now(UTC).date()
    recent, old = (str(today - timedelta(days=back)) for back in (1, settings.lookback_days + 1))
    cursor = start()
    fail_days(instance, recent, reason="ClickHouse was not reached", error=TransientError)
    cursor = tick(instance, settings, cursor)
    fail_days(instance, old, reason="ClickHouse was not reached", error=TransientError)
    tick(instance, settings, cursor)
    soon, never = slack.texts
    assert f"failed in its layer curated for {recent}, is tried again by itself" in soon
    last = today + timedelta(days=settings.lookback_days - 1)
    assert (
        f"Act now: no. market_daily_schedule tries it again every day at 01:00 UTC, for the last time on {last}" in soon
    )
    assert "If it fails again: " in soon
    assert "Act now: yes. Nothing tries it again by itself." in never
    assert (
        f"What to do: Correct the data at the source, then materialise the day.\nThen make it again: "
        f"data-platform backfill market/orders --from {old} --to {old}" in never
    )


@pytest.mark.unit
def test_history_is_not_alerted_and_what_was_told_is_not_told_again(
    slack: Slack, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, slack)
    fail_days(instance, "2024-01-01")
    cursor = tick(instance, settings, None)
    assert slack.texts == []
    fail_days(instance, "2024-01-02")
    following = tick(instance, settings, cursor)
    tick(instance, settings, following)
    tick(instance, settings, cursor)  # the process died before Dagster kept the cursor
    assert len(slack.texts) == 1


@pytest.mark.unit
def test_nothing_is_sent_and_nothing_fails_without_routes(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    cursor = start()
    fail_days(instance, "2024-01-01")
    after = Cursor.model_validate_json(tick(instance, settings_of(tmp_path, None), cursor))
    assert after.seen, "the run counts as looked at: routes added later do not bring back the past"


@pytest.mark.unit
def test_a_run_that_is_repeated_by_itself_is_not_told(
    slack: Slack, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    cursor = start()
    instance.add_run_tags(fail_days(instance, "2024-01-01"), {"dagster/will_retry": "true"})
    tick(instance, settings_of(tmp_path, slack), cursor)
    assert slack.texts == []


@pytest.mark.scenario
def test_a_hundred_ticks_with_faults_lose_nothing_and_tell_nothing_twice(
    slack: Slack, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    chance = random.Random(20240101)
    struck = {"refused": 0, "crashed": 0}

    def answer() -> int:
        if chance.random() < 0.3:
            struck["refused"] += 1
            return chance.choice([429, 500, 503])
        return 200

    slack.answer = answer
    settings = settings_of(tmp_path, slack, alert_per_minute=60)
    cursor, expected = start(), 0
    for number in range(100):
        if chance.random() < 0.3:
            fail_days(instance, "2024-01-01", reason=f"reason number {number}.")
            expected += 1
        following = tick(instance, settings, cursor)
        if chance.random() < 0.25:
            struck["crashed"] += 1  # what the tick did stays done; its cursor was never kept
        else:
            cursor = following
    slack.answer = lambda: 200
    for _ in range(6):
        cursor = tick(instance, settings, cursor)
    told = [line for text in slack.texts for line in text.splitlines() if line.startswith("Why")]
    assert min(struck.values()) > 5
    assert len({line.partition(": ")[2] for line in told}) == expected
    assert len(cursor) < 2000


@pytest.mark.unit
def test_a_webhook_gets_so_many_messages_a_minute_from_all_processes(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, alert_per_minute=3)
    moments = [0.0, 1.0, 2.0, 3.0, 59.0, 60.5, 61.0, 61.5]
    taken = [take_slot(settings, "https://a", now=1000 + moment) for moment in moments]
    assert taken == [True, True, True, False, False, True, True, False]
    assert take_slot(settings, "https://b", now=1003.0)
    (tmp_path / "alerts").joinpath(next(p.name for p in (tmp_path / "alerts").iterdir())).write_text('{"cut')
    assert take_slot(settings, "https://a", now=1062.0), (
        "a file that a crash cut short does not silence alerts for ever"
    )


@pytest.mark.unit
def test_a_dead_webhook_harms_nobody_and_its_address_is_never_told(tmp_path: Path) -> None:
    route = Route(slack=SecretStr("http://127.0.0.1:9/services/secret"))
    (outcome,) = deliver(Settings(home=tmp_path), route, Alert("team:a", "t", "b"))
    assert outcome.delivered is Delivered.FAILED
    assert "secret" not in outcome.reason


@pytest.mark.unit
def test_many_subjects_of_one_owner_are_one_message_and_markup_is_not_obeyed(slack: Slack, tmp_path: Path) -> None:
    problems = [
        Problem("team:a", f"market/t{n:02}", "failed", "2024-01-01", "<!channel> & co", "wait", "r") for n in range(12)
    ]
    (alert,) = group(problems, env="dev", dagster_url=None)
    assert alert.title == "[dev] 12 datasets and jobs need you"
    assert "- market/t11: failed for 2024-01-01" in alert.body
    deliver(settings_of(tmp_path, slack), Route(slack=SecretStr(slack.url)), alert)
    assert "&lt;!channel&gt; &amp; co" in slack.texts[0]


@pytest.mark.unit
def test_owners_have_routes_of_their_own_addresses_get_mail_and_the_rest_goes_to_everybody_else() -> None:
    routes = {"team:a": Route(email=("a@b.c",)), "*": Route(email=("all@b.c",))}
    assert route_of(routes, "team:a") == routes["team:a"]
    assert route_of(routes, "me@b.c") == Route(email=("me@b.c",))
    assert route_of(routes, "team:b") == routes["*"]
    assert route_of({}, "me@b.c") is None


@pytest.mark.unit
@pytest.mark.parametrize("text", ["{", '{"team:a": {"slak": "x"}}', '{"team:a": {"slack": "ftp://secret"}}'])
def test_routes_that_do_not_fit_are_refused_without_telling_them(text: str) -> None:
    with pytest.raises(ConfigurationError, match="DATA_PLATFORM_ALERT_ROUTES") as caught:
        read_routes(Settings(alert_routes=SecretStr(text)))
    assert "secret" not in str(caught.value)


@pytest.mark.integration
def test_mail_goes_out_through_ses(cloud: Any, tmp_path: Path) -> None:
    from data_platform.clients import aws

    settings = cloud.settings.model_copy(update={"home": tmp_path, "alert_sender": "platform@example.com"})
    route, alert = Route(email=("a@example.com",)), Alert("team:a", "title", "body")
    (refused,) = deliver(settings, route, alert)
    assert refused.delivered is Delivered.FAILED, "the sender's address is not verified"
    aws.client(settings, "sesv2").create_email_identity(EmailIdentity="platform@example.com")
    (sent,) = deliver(settings, route, alert)
    assert sent.delivered is Delivered.SENT, sent.reason
    assert deliver(settings, route, alert) == []
