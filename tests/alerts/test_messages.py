"""Every message that asks a person for something, as a page to read: each has to be understood without anything else.

Refresh it after a wanted change, then read it as somebody who knows nothing else: python -m tests.alerts.test_messages
"""

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from clickhouse_connect.driver.exceptions import DatabaseError

from data_platform.alerts.message import Alert, Problem, group
from data_platform.assets.checks import BoundaryError, metadata_of, told
from data_platform.assets.outcomes import outcome_of
from data_platform.assets.user_statistics import APPLY_AGAIN, TABLE_DIFFERS, user_statistics_check
from data_platform.catalog.models import NotNull, Range, RowDrift
from data_platform.errors import ConfigurationError, PlatformError, ThrottledError, TransientError, UnknownOutcomeError
from data_platform.quality import layers
from data_platform.quality.rules import judge, rules_of
from data_platform.quality.standing import expected_days, judge_failed, judge_latest
from data_platform.sensors.dlq import sentence
from data_platform.sensors.kafka_lag import Lag, problem_of
from data_platform.sensors.problems import DAY_MISSING, ENDED, PROCESS_ENDED, failed_in, problem_of_check, tried_again
from data_platform.unload.datasets import NotReadyError
from tests.desk.conftest import catalog_of, dataset_of

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).with_name("golden") / "messages.txt"
DAY = date(2024, 3, 9)
ORDERS = dataset_of(
    "orders",
    checks=[
        {"kind": "not_null", "columns": ["amount"]},
        {"kind": "unique", "columns": ["id"]},
        {"kind": "range", "column": "amount", "min": 0},
        {"kind": "row_drift", "tolerance": 0.5},
    ],
)
ERRORS = {
    "the data do not fit": PlatformError(
        "column amount holds nulls, and the catalogue says that it has none",
        hint="correct the rows at the source, or make the column nullable in the catalogue",
    ),
    "ClickHouse is away": TransientError("ClickHouse at ch:8443 was not reached"),
    "Redshift has no slot": ThrottledError("Redshift has no free connection (limit 500)"),
    "a grant is missing": ConfigurationError(
        "Redshift refuses the query: permission denied for relation orders [42501]"
    ),
    "nobody knows": UnknownOutcomeError("the UNLOAD of attempt 3 was sent and its answer never came"),
    "held back": NotReadyError(
        "market/orders of 2024-03-09 waits for its source: source.ready gave False, not true",
    ),
    "a layer disagrees": BoundaryError(
        "market/orders 2024-03-09: its source has 10 rows, its curated files have 9.",
        hint="Make its curated files again: data-platform backfill market/orders --from 2024-03-09 --to 2024-03-09 "
        f"--stages curated,clickhouse. {layers.IF_AGAIN} The day's later layers are not made until then",
    ),
    "a bug": KeyError("carrier"),
    "S3 refuses": ClientError({"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}, "PutObject"),
    "S3 is away": EndpointConnectionError(endpoint_url="https://s3.eu-central-1.amazonaws.com"),
    "ClickHouse refuses": DatabaseError("Code: 241. DB::Exception: Memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)"),
}


def failed(what: str, *days: str, owner: str = "team:market-data", subject: str = "market/orders") -> list[Problem]:
    """What the alert sensor makes, the morning after 2024-03-09, of days that ended with the error called `what`."""
    outcome = outcome_of(ERRORS[what])
    title = failed_in(dg.AssetKey([LAYER.get(what, "unload"), "market", "orders"]))
    return [
        Problem(
            owner, subject, title, day, outcome.reason, outcome.next_step, "6f1c2a9e",
            again=tried_again(catalog_of(ORDERS), ORDERS, outcome.fault, day, datetime(2024, 3, 10, 2, tzinfo=UTC), 7),
            effect=DAY_MISSING,
        )
        for day in days
    ]  # fmt: skip


RAW = "2024-03-09: 900 events of 120 users in the table of dau, 900 events of 121 users in the raw events"
OWNER = {
    "market/orders": "team:market-data",
    "summaries/theshop_brand/dau": "team:shop",
    "user_statistics/files": "nobody",
}
LAYER = {"the data do not fit": "curated", "ClickHouse is away": "clickhouse", "ClickHouse refuses": "clickhouse",
         "a layer disagrees": "curated", "a bug": "curated"}  # fmt: skip


def alerts() -> Iterator[tuple[str, list[Alert]]]:
    """Titles of the page with the messages that are sent."""

    def sent(problems: list[Problem]) -> list[Alert]:
        return group(problems, env="prod", dagster_url="https://dagster.example.com")

    for what in ERRORS:
        if what != "held back":  # nothing is wrong: nobody is told
            yield f"one day failed: {what}", sent(failed(what, "2024-03-09"))
    yield "a day failed that no schedule repairs: ClickHouse is away", sent(failed("ClickHouse is away", "2023-11-02"))
    yield (
        "a few days failed, for two reasons",
        sent([*failed("the data do not fit", "2024-03-03", "2024-03-05"), *failed("S3 refuses", "2024-03-04")]),
    )
    yield (
        "a backfill failed for 31 days",
        sent(failed("the data do not fit", *(f"2024-01-{n:02}" for n in range(1, 32)))),
    )
    many = [each for n in range(12) for each in failed("ClickHouse is away", "2024-03-09", subject=f"market/t{n:02}")]
    yield "an engine was away for many datasets", sent(many)
    wrong = [each for n in range(4) for each in failed("a grant is missing", "2024-03-09", subject=f"market/t{n:02}")]
    yield "a grant is missing for many datasets", sent(wrong)
    ended = Problem("nobody", "job load_reconciliation", "failed", None, ENDED, PROCESS_ENDED, "6f1c2a9e",
                    effect="Nothing tries it again by itself. What it was to make is as it was before.")  # fmt: skip
    yield "a run's process ended", sent([ended])
    for name, evaluation in evaluations().items():
        yield f"check of {name}", sent([problem_of_check(evaluation, OWNER[name], name, "6f1c2a9e")])
    yield (
        "a consumer is behind",
        sent([problem_of(Lag("billing", "data-platform.market.orders.loaded", 25_000), 10_000)]),
    )


def evaluations() -> dict[str, dg.AssetCheckEvaluation]:
    """Failed checks: one with a sentence, one with a detail, one with numbers alone."""
    finding = judge(ORDERS, DAY, rules_of(ORDERS)[0], 1000, 12)
    return {
        "market/orders": dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(["clickhouse", "market", "orders"]), check_name=finding.check, passed=False,
            partition="2024-03-09", description=told(finding), metadata=metadata_of(finding),
        ),
        "summaries/theshop_brand/dau": dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(["summaries", "theshop_brand", "dau"]), check_name="equals_raw_events", passed=False,
            metadata={"detail": dg.MetadataValue.text(RAW)},
        ),
        "user_statistics/files": statistics_check(),
    }  # fmt: skip


def statistics_check() -> dg.AssetCheckEvaluation:
    """The check that a table is as its file, not passed."""
    found = user_statistics_check(
        "table_matches_file",
        TABLE_DIFFERS.format(wrong=2, rows=500, url="s3://drops/incoming/day.csv"),
        APPLY_AGAIN.format(url="s3://drops/incoming/day.csv"),
        rows_compared=500,
    )
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(["user_statistics", "files"]), check_name="table_matches_file", passed=False,
        description=found.description, metadata=found.metadata,
    )  # fmt: skip


def findings() -> Iterator[tuple[str, str]]:
    """The checks' own sentences, as they stand in Dagster."""
    for rule, value in zip(rules_of(ORDERS), (12, 3, 7, (14, 1000.0)), strict=True):
        rows = 400 if isinstance(rule.check, RowDrift) else 1000
        finding = judge(ORDERS, DAY, rule, rows, value)
        assert not finding.passed
        yield rule.name, told(finding)
    now = datetime(2024, 3, 11, 6, tzinfo=UTC)
    yield "latest_day_is_there", told(judge_latest(ORDERS, expected_days(ORDERS, now, default_hours=24), {}))
    left = {f"2024-03-0{n}": ("curated", outcome_of(ERRORS["the data do not fit"]).reason) for n in (7, 9)}
    yield "no_partition_left_failed", told(judge_failed(ORDERS, left))
    yield "no_dead_letters", sentence("market", 3)
    for name, text in layers.DESCRIPTIONS.items():
        yield f"what {name} says of itself", text


def page() -> str:
    """All of it."""
    lines: list[str] = ["# What people are sent", ""]
    for title, messages in alerts():
        lines += [f"## {title}", ""]
        for message in messages:
            lines += [f"    {line}".rstrip() for line in (message.title, *message.body.splitlines())] + [""]
    lines += ["# What stands beside a day or a check in Dagster", ""]
    for what, error in ERRORS.items():
        outcome = outcome_of(error)
        shown = outcome.observation(dg.AssetKey(["unload", "market", "orders"]), "2024-03-09").metadata
        lines += [f"## {what}", "", *(f"    {name}: {value.value}" for name, value in shown.items()), ""]
    for name, text in findings():
        lines += [f"## {name}", "", f"    {text}", ""]
    return "\n".join(lines)


def test_the_messages_are_as_they_were_read() -> None:
    assert page() == GOLDEN.read_text(encoding="utf-8"), __doc__


def test_every_message_says_why_what_to_do_and_whom_it_is_for() -> None:
    for title, messages in alerts():
        assert messages, title
        for message in messages:
            lines = message.body.splitlines()
            assert any(line.startswith("Why") for line in lines), message.body
            assert lines[0].startswith(("Act now: yes. ", "Act now: no. ")), message.body
            steps = "If it fails again: " if lines[0].startswith("Act now: no") else "What to do: "
            assert any(line.startswith(steps) and len(line) > 30 for line in lines), message.body
            assert lines[-1].startswith("Sent to ")
            assert "[prod]" in message.title


def test_no_rule_of_the_catalogue_is_left_out_of_the_page() -> None:
    kinds = {type(rule.check) for rule in rules_of(ORDERS)}
    assert {NotNull, Range, RowDrift} < kinds


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(page(), encoding="utf-8")
    sys.stdout.write(page())
