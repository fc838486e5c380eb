"""The page's first part: every kind of message that is sent to a person, made by what sends it."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from data_platform.alerts.message import Alert, Problem, group
from data_platform.analytics.athena import checks as athena_checks
from data_platform.analytics.checks import check_names
from data_platform.analytics.metrics import METRICS
from data_platform.assets.checks import BOUNDARY, SEVERITY, metadata_of, told
from data_platform.assets.keys import Stage, stage_key
from data_platform.assets.outcomes import outcome_of, stop_retries
from data_platform.assets.user_statistics import checks_of, foreign_keys_result, partition_of, refusal_of
from data_platform.catalog.models import Service
from data_platform.errors import ConfigurationError, TransientError
from data_platform.jobs.daily import repairs
from data_platform.jobs.loading import cannot_be_loaded, still_waiting
from data_platform.jobs.unload_requests import failure_of
from data_platform.quality.finding import Finding
from data_platform.sensors.kafka_lag import Lag, problem_of
from data_platform.sensors.problems import (
    DAY_MISSING,
    failed_in,
    problem_of_check,
    problems_of_run,
    tried_again,
)
from data_platform.sensors.unload_requests import REQUEST_TAG
from data_platform.statistics.compare import Orphans
from tests.alerts.kinds import (
    CATALOG,
    ERRORS,
    LAYER,
    LOOKBACK,
    NOW,
    ORDERS,
    broken_layers,
    findings,
    outcome_of_file,
    unload_request,
)


def sent(problems: list[Problem]) -> list[Alert]:
    """The messages that are made of problems."""
    return group(problems, env="prod", dagster_url="https://dagster.example.com")


def failed(what: str, *days: str, owner: str = "team:market-data", subject: str = "market/orders") -> list[Problem]:
    """What the alert sensor makes, the morning after 2024-03-09, of days that ended with the error called `what`."""
    outcome = outcome_of(ERRORS[what])
    title = failed_in(dg.AssetKey([LAYER.get(what, "unload"), "market", "orders"]))
    repair = repairs(CATALOG, LOOKBACK)[ORDERS.key]
    return [
        Problem(
            owner, subject, title, day, outcome.reason, outcome.next_step, "6f1c2a9e",
            again=tried_again(repair, outcome.fault, day, NOW), effect=DAY_MISSING,
        )
        for day in days
    ]  # fmt: skip


def days_alerts() -> Iterator[tuple[str, list[Alert]]]:
    """Of days that failed."""
    for what in ERRORS:
        if what != "held back":  # nothing is wrong: nobody is told
            yield f"one day failed: {what}", sent(failed(what, "2024-03-09"))
    yield "a day failed that no schedule repairs: ClickHouse is away", sent(failed("ClickHouse is away", "2023-11-02"))
    yield "some days failed: ClickHouse is away", sent(failed("ClickHouse is away", "2024-03-07", "2024-03-09"))
    yield (
        "a few days failed, for two reasons",
        sent([*failed("the data do not fit", "2024-03-03", "2024-03-05"), *failed("S3 refuses", "2024-03-04")]),
    )
    yield (
        "a few days failed, one of them is tried again",
        sent([*failed("the data do not fit", "2024-03-08"), *failed("ClickHouse is away", "2024-03-09")]),
    )
    scattered = (f"2024-01-{n:02}" for n in range(1, 20, 3))
    yield "days here and there failed", sent(failed("the data do not fit", *scattered))
    yield (
        "a backfill failed for 31 days",
        sent(failed("the data do not fit", *(f"2024-01-{n:02}" for n in range(1, 32)))),
    )
    many = [each for n in range(12) for each in failed("ClickHouse is away", "2024-03-09", subject=f"market/t{n:02}")]
    yield "an engine was away for many datasets", sent(many)
    wrong = [each for n in range(4) for each in failed("a grant is missing", "2024-03-09", subject=f"market/t{n:02}")]
    yield "a grant is missing for many datasets", sent(wrong)


RUNS: dict[str, tuple[str, Exception | None]] = {
    "a daily run's process ended": ("market_daily", None),
    "the summaries' process ended": ("summaries", None),
    "the catch-up had its time": ("load_catch_up", still_waiting(["market"])),
    "the reconciliation found files that do not load": (
        "load_reconciliation",
        cannot_be_loaded(
            "curated",
            {
                "market/orders/ds=2024-03-08/part-7.parquet": "E003: column amount is text, the table has Int32",
                "market/orders/ds=2024-03-08/part-8.parquet": "E002: it is no Parquet file",
            },
        ),
    ),
    "the reconciliation could not reach ClickHouse": ("load_reconciliation", ERRORS["ClickHouse is away"]),
    "the summaries could not reach ClickHouse": ("summaries", TransientError("ClickHouse at ch:8443 was not reached")),
    "the summaries lack a right": (
        "summaries",
        ConfigurationError("ClickHouse refuses: analytics may not create tables in analytics_blocks [497]"),
    ),
    "the summaries have a bug": ("summaries", KeyError("dau")),
    "the standing checks could not reach ClickHouse": ("standing_checks", ERRORS["ClickHouse is away"]),
    "an unload request failed": ("unload_request", dg.Failure(failure_of(unload_request()), allow_retries=False)),
    "an unload request's process ended": ("unload_request", None),
    "a CSV drop was refused": ("user_statistics", dg.Failure(refusal_of(outcome_of_file()), allow_retries=False)),
    "a CSV drop's process ended": ("user_statistics", None),
    "a setting is missing": (
        "load_reconciliation",
        ConfigurationError("not set: CLICKHOUSE_HOST", hint="set it in the environment, see docs/settings.md"),
    ),
}


TAGS = {
    "unload_request": {REQUEST_TAG: "3f0c7a52"},
    "user_statistics": {"dagster/partition": partition_of("s3://drops/incoming/day.csv@v1")},
}


def runs_alerts() -> Iterator[tuple[str, list[Alert]]]:
    """Of runs that failed as a whole: real ones, in the process of the test, as the alert sensor reads them."""
    with dg.DagsterInstance.ephemeral() as instance:
        for title, (name, error) in RUNS.items():
            run = _run(instance, name, error)
            found = list(problems_of_run(instance, CATALOG, run, lookback=LOOKBACK, now=NOW))
            alerts = sent(found)
            bodies = [each.body.replace(run.run_id, "6f1c2a9e") for each in alerts]
            yield title, [Alert(a.owner, a.title, body) for a, body in zip(alerts, bodies, strict=True)]


def _run(instance: dg.DagsterInstance, name: str, error: Exception | None) -> dg.DagsterRun:
    @dg.op(name="op")
    def op() -> None:
        if error is not None:
            raise error

    @dg.job(name=name, hooks={stop_retries}, logger_defs={})
    def job() -> None:
        op()

    if error is not None:
        run_id = job.execute_in_process(instance=instance, raise_on_error=False, tags=TAGS.get(name)).run_id
    else:  # killed: Dagster's monitoring finds it and reports it so
        run_id = instance.create_run_for_job(job, tags=TAGS.get(name)).run_id
        begun = instance.get_run_by_id(run_id)
        assert begun is not None
        instance.report_run_failed(begun, "Run worker exited without finishing the run.")
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def evaluations() -> Iterator[tuple[str, str, dg.AssetCheckEvaluation]]:
    """Every check that can fail, failed: its subject, the subject's owner, the evaluation."""
    stages = {name: stage for stage, name in BOUNDARY.items()}
    for finding in (*broken_layers(), *findings()):
        if SEVERITY[finding.weight] is dg.AssetCheckSeverity.ERROR:  # nobody is told of warnings
            key = stage_key(stages.get(finding.check, Stage.CLICKHOUSE), ORDERS)
            yield "market/orders", "team:market-data", evaluation_of(key, finding)
    service = Service.model_validate({"name": "theshop-brand", "owner": "team:shop", "time_zone": "Asia/Tokyo"})
    names = {name: metric for metric in METRICS for name in (*check_names(metric), *athena_checks.check_names(metric))}
    for name, metric in names.items():
        detail = SUMMARY_DETAILS.get(name, f"2024-03-09: 120 in the table of {metric}, 121 in the table of dau")
        yield (
            f"summaries/{service.prefix}/{metric}",
            service.owner,
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey(["summaries", service.prefix, metric]), check_name=name, passed=False,
                metadata={"detail": dg.MetadataValue.text(detail)},
            ),
        )  # fmt: skip
    results: list[tuple[str, Any]] = [(check.check_name or "", check) for check in checks_of(outcome_of_file())]
    results.append(("foreign_keys", foreign_keys_result(Orphans(3, enforced=False))))
    for name, result in results:
        asset = ["user_statistics", "user_statistics" if name == "foreign_keys" else "files"]
        yield (
            "/".join(asset),
            "nobody",
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey(asset), check_name=name, passed=False, description=result.description,
                metadata=result.metadata,
            ),
        )  # fmt: skip


SUMMARY_DETAILS = {
    "not_empty": "record_count 0",
    "not_stale": "last_execution 2024-03-08, run of 2024-03-10",
    "equals_raw_events": "2024-03-09: 900 events of 120 users in the table of dau, 900 events of 121 users in the raw "
    "events",
    "equals_interval_algorithm": "2024-03-09: 400 in the table of mau, 401 in the interval algorithm on user-days",
    "equals_distinct_users": "2024-03-09: 400 in the table of mau, 401 in the distinct users of the user-days",
    "equals_other_engine": "2024-03-09: 120 in the table of event_distribution on Athena, 121 in ClickHouse; 2 or more "
    "differ",
}


def evaluation_of(key: dg.AssetKey, finding: Finding) -> dg.AssetCheckEvaluation:
    """A finding as a run logs it."""
    return dg.AssetCheckEvaluation(
        asset_key=key, check_name=finding.check, passed=False, partition="2024-03-09", description=told(finding),
        metadata=metadata_of(finding),
    )  # fmt: skip


def checks_alerts() -> Iterator[tuple[str, list[Alert]]]:
    """Of checks that did not pass."""
    for subject, owner, evaluation in evaluations():
        alerts = sent([problem_of_check(evaluation, owner, subject, "6f1c2a9e")])
        yield f"check {evaluation.check_name} of {subject}", alerts


def alerts() -> Iterator[tuple[str, list[Alert]]]:
    """Titles of the page with the messages that are sent."""
    yield from days_alerts()
    yield from runs_alerts()
    yield from checks_alerts()
    yield (
        "a consumer is behind",
        sent([problem_of(Lag("billing", "data-platform.market.orders.loaded", 25_000), 10_000)]),
    )
