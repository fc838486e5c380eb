"""Runs on Athena: no query is paid twice, what is stopped is stopped, filters are always there, nothing is left."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import date, timedelta
from random import Random

import pytest

from data_platform.analytics.athena import run as athena_run
from data_platform.analytics.athena import summaries as athena_summaries
from data_platform.analytics.athena.layout import Places
from data_platform.analytics.athena.state import LeaseHeldError, leased, read_state
from data_platform.analytics.metrics import METRICS
from data_platform.catalog.models import Service
from data_platform.clients import aws
from data_platform.clients.athena import Athena, AthenaQueryError, AthenaTimeoutError, QueryStoppedError
from data_platform.errors import ConfigurationError, Fault
from tests.analytics.athena.conftest import RUN, AthenaDesk
from tests.analytics.random_logs import random_events
from tests.analytics.reference import Definitions, Event, Reference

pytestmark = pytest.mark.integration
DEFINITIONS = Definitions("Asia/Seoul")
OUTPUT = "s3://data-platform-curated"
QUERIES = 21  # of a first run
KILLS = [(step, at) for step in ("start", "wait") for at in range(1, QUERIES + 1)]  # begun, or ended


@pytest.fixture
def service(athena_desk: AthenaDesk) -> Service:
    return athena_desk.service(time_zone="Asia/Seoul", min_data_date=date(2018, 1, 2))


def logs(seed: int) -> list[Event]:
    random = Random(seed)
    while not (events := random_events(random, DEFINITIONS, date(2018, 6, 3))) or len(events) > 60:
        pass
    return events


def same(desk: AthenaDesk, service: Service, events: list[Event]) -> None:
    reference = Reference(events, Definitions("Asia/Seoul", min_date=service.min_data_date))
    for metric in METRICS:
        assert desk.rows(service, metric) == getattr(reference, metric)(), metric


def test_every_statement_filters_on_year_month_day_and_min_data_date(athena_desk: AthenaDesk, service: Service) -> None:
    before = set(athena_desk.executions())
    athena_desk.put({service.name: logs(1)})
    athena_desk.run(service)
    asked = athena_desk.statements([name for name in athena_desk.executions() if name not in before])
    assert len(asked) >= 11
    partitioned = re.compile(r'"(?:analytics_events|blocks_\w+)"')
    for sql in asked:
        tables = len(partitioned.findall(sql))
        assert len(re.findall(r"\byear (?:=|BETWEEN) '", sql)) == tables, sql
        assert len(re.findall(r"\bday (?:BETWEEN|>=) '", sql)) >= tables, sql
        assert (
            sql.count("local_day >= DATE '2018-01-02'") + sql.count("local_day >= CAST('2018-01-02' AS DATE)") >= tables
        ), sql
    assert sum(bool(partitioned.search(sql)) for sql in asked) >= 11


@pytest.mark.load
def test_a_second_run_of_the_day_asks_nothing_and_late_events_ask_for_their_days_only(
    athena_desk: AthenaDesk, service: Service
) -> None:
    events = logs(2)
    athena_desk.put({service.name: events[1:]})
    first = athena_desk.run(service)
    assert first.queries >= 11
    assert first.bytes_scanned > 0
    assert 5e-5 <= first.usd <= 5e-5 * first.queries  # so little is scanned that each query costs the least there is
    before = len(athena_desk.executions())
    again = athena_desk.run(service)
    assert len(athena_desk.executions()) == before
    assert (again.days, [table.computed for table in again.tables]) == (frozenset(), [False] * len(METRICS))
    athena_desk.put({service.name: events[:1]})
    athena_desk.run(service)
    same(athena_desk, service, events)


@pytest.mark.load
def test_a_new_day_rewrites_the_execution_date_without_rebuilding(athena_desk: AthenaDesk, service: Service) -> None:
    athena_desk.put({service.name: logs(3)})
    athena_desk.run(service)
    later = athena_desk.run(service, on=date(2024, 9, 2))
    assert later.days == frozenset()
    assert all(table.computed for table in later.tables)
    assert [check.name for check in later.checks if not check.passed] == []


KILLED = """
import os, sys
from datetime import date
from data_platform.analytics.athena import run, blocks
from data_platform.catalog.models import Service
from data_platform.clients import athena
from data_platform.settings import load_settings
step, left = sys.argv[2], int(sys.argv[3])
real = getattr(athena.Athena, step)
def until(self, *args, **options):
    global left
    found = real(self, *args, **options)
    left -= 1
    if left <= 0:
        os.kill(os.getpid(), 9)
    return found
setattr(athena.Athena, step, until)
run.rebuild_service(load_settings(), Service.model_validate_json(sys.argv[1]), date(2024, 9, 1))
"""


@pytest.mark.parametrize(
    ("step", "queries"),
    [("wait", 3), *(pytest.param(step, at, marks=pytest.mark.load) for step, at in KILLS if (step, at) != ("wait", 3))],
)
def test_a_run_that_was_killed_and_restarted_pays_for_no_query_twice(
    athena_desk: AthenaDesk, service: Service, step: str, queries: int
) -> None:
    events = logs(4)
    athena_desk.put({service.name: events})
    before = set(athena_desk.executions())
    environment = {**os.environ, **athena_desk.process.env}
    command = [sys.executable, "-c", KILLED, service.model_dump_json(), step, str(queries)]
    died = subprocess.run(command, env=environment, timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL
    killed = set(athena_desk.executions()) - before
    assert len(killed) >= queries
    places = Places(OUTPUT, service.name)
    body = athena_desk.s3.get_object(Bucket="data-platform-curated", Key=places.lease.removeprefix(f"{OUTPUT}/"))
    assert b'"owner": ""' not in body["Body"].read()  # nobody gave the lease back
    athena_desk.s3.delete_object(Bucket="data-platform-curated", Key=places.lease.removeprefix(f"{OUTPUT}/"))
    run = athena_desk.run(service)
    same(athena_desk, service, events)
    asked = athena_desk.statements([name for name in athena_desk.executions() if name not in before])
    assert len(asked) == len(set(asked))  # every statement once
    # Those the killed run began are found again, those it committed not even asked for.
    assert run.queries <= len(asked)


def test_a_time_out_stops_the_query(athena_desk: AthenaDesk, service: Service) -> None:
    athena_desk.put({service.name: logs(5)})
    stall = athena_desk.process.faults.arm("athena.stall", match={"query": f"*{service.name}*"}, times=1, seconds=120)
    settings = athena_desk.settings.model_copy(update={"athena_timeout_s": 1})
    athena = Athena(settings)
    name = athena.start(f"SELECT '{service.name}'", "time-out")
    with pytest.raises(AthenaTimeoutError, match="stopped"):
        athena.wait(name)
    deadline = time.monotonic() + 30
    while athena.get(name).state == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert athena.get(name).state == "CANCELLED"
    assert athena_desk.process.faults.struck(stall) == 1


@pytest.mark.load
def test_what_is_called_off_stops_its_queries_and_leaves_the_tables(athena_desk: AthenaDesk, service: Service) -> None:
    events = logs(6)
    athena_desk.put({service.name: events[1:]})
    athena_desk.run(service)
    athena_desk.put({service.name: events[:1]})
    faults = athena_desk.process.faults
    stall = faults.arm("athena.stall", match={"query": f"*{service.name}*"}, times=None, seconds=120)
    cancel = threading.Event()
    threading.Thread(target=lambda: (_until(lambda: faults.struck(stall) > 0), cancel.set())).start()
    with pytest.raises(QueryStoppedError):
        athena_desk.run(service, cancel=cancel)
    faults.clear()
    _until(lambda: "RUNNING" not in _states(athena_desk))
    same(athena_desk, service, events[1:])
    athena_desk.run(service)
    same(athena_desk, service, events)


def _states(desk: AthenaDesk) -> set[str]:
    ids = desk.executions()[:10]
    answer = desk.athena.batch_get_query_execution(QueryExecutionIds=ids)
    return {each["Status"]["State"] for each in answer["QueryExecutions"]}


def _until(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.load
def test_throttling_a_lost_answer_and_an_internal_error_are_got_over(athena_desk: AthenaDesk, service: Service) -> None:
    events = logs(7)
    athena_desk.put({service.name: events})
    faults = athena_desk.process.faults
    mine = {"query": f"*{service.name}*"}
    armed = [faults.arm(kind, match=mine, skip=skip) for kind, skip in
             (("athena.throttle", 1), ("athena.lost", 2), ("athena.fail", 3))]  # fmt: skip
    run = athena_desk.run(service)
    assert [faults.struck(each) for each in armed] == [1, 1, 1]
    assert run.throttled == 1
    same(athena_desk, service, events)


def test_a_syntax_error_is_asked_once(athena_desk: AthenaDesk) -> None:
    before = len(athena_desk.executions())
    with pytest.raises(AthenaQueryError) as caught:
        Athena(athena_desk.settings).run(lambda attempt: f"SELEC {attempt}", "syntax")
    assert caught.value.fault is Fault.PERMANENT
    assert len(athena_desk.executions()) == before + 1


@pytest.mark.load
def test_a_run_over_the_budget_asks_nothing(athena_desk: AthenaDesk, service: Service) -> None:
    athena_desk.put({service.name: logs(8)})
    before = len(athena_desk.executions())
    poor = athena_desk.settings.model_copy(update={"athena_budget_usd": 0.0001})
    with pytest.raises(ConfigurationError, match="over the budget"):
        athena_run.rebuild_service(poor, service, RUN)
    assert len(athena_desk.executions()) == before


@pytest.mark.load
def test_what_nothing_points_to_is_swept_when_nobody_can_be_writing_it(
    athena_desk: AthenaDesk, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = logs(9)
    athena_desk.put({service.name: events[1:]})
    athena_desk.run(service)
    orphan = f"athena/tables/{service.name}/dau/s9_failed_0/part"
    athena_desk.s3.put_object(Bucket="data-platform-curated", Key=orphan, Body=b"x")
    athena_desk.put({service.name: events[:1]})
    run = athena_desk.run(service)
    assert run.swept >= len(METRICS)  # each table's data of the first run
    # Whoever wrote it may be writing still: a run that lost its lease and does not know yet.
    assert athena_desk.s3.head_object(Bucket="data-platform-curated", Key=orphan)["ContentLength"] == 1
    monkeypatch.setattr(athena_run, "SWEPT_AFTER", timedelta(0))
    assert athena_desk.run(service).swept == 1
    places = Places(OUTPUT, service.name)
    state = read_state(athena_desk.s3, places).state
    used = {place for each in state.places.values() for place in each.values()}
    used |= {table.location for table in state.tables.values()}
    listed = athena_desk.s3.list_objects_v2(Bucket="data-platform-curated", Prefix="athena/", MaxKeys=1000)
    folders = {
        f"{OUTPUT}/{item['Key'].rpartition('/')[0]}/"
        for item in listed["Contents"]
        if f"/{service.name}/" in item["Key"] and "/state/" not in item["Key"]
    }
    assert folders <= used
    glue = aws.client(athena_desk.settings, "glue")
    names = [table["Name"] for table in glue.get_tables(DatabaseName="log_db")["TableList"]]
    assert [name for name in names if name.startswith(f"tmp_{service.prefix}__")] == []


@pytest.mark.load
def test_two_runs_do_not_work_on_one_service(athena_desk: AthenaDesk, service: Service) -> None:
    with leased(athena_desk.s3, Places(OUTPUT, service.name)), pytest.raises(LeaseHeldError):
        athena_desk.run(service, wait_s=0.1)


@pytest.mark.load
def test_a_service_without_events_has_empty_tables_that_say_so(athena_desk: AthenaDesk, service: Service) -> None:
    run = athena_desk.run(service)
    for metric in METRICS:
        assert athena_desk.rows(service, metric) == []
        failed = [check.name for check in run.checks if check.metric == metric and not check.passed]
        assert failed == ["not_empty", "not_stale"]


@pytest.mark.load
def test_a_day_that_lost_its_events_leaves_no_rows(athena_desk: AthenaDesk, service: Service) -> None:
    events = logs(10)
    athena_desk.put({service.name: events})
    athena_desk.run(service)
    days = sorted(ds for ds, each in athena_desk.delivered.items() if any(name == service.name for name, _ in each))
    gone = days[0]
    lost = [event for name, event in athena_desk.delivered[gone] if name == service.name]
    athena_desk.delivered[gone] = [each for each in athena_desk.delivered[gone] if each[0] != service.name]
    athena_desk.commit(gone)
    athena_desk.run(service)
    ids = {id(event) for event in lost}
    same(athena_desk, service, [event for event in events if id(event) not in ids])


TERMINATED = """
import sys
from datetime import date
from data_platform.analytics.athena.run import rebuild_service
from data_platform.catalog.models import Service
from data_platform.settings import load_settings
rebuild_service(load_settings(), Service.model_validate_json(sys.argv[1]), date(2024, 9, 1))
"""


@pytest.mark.load
def test_sigterm_stops_the_queries_and_gives_the_lease_back(athena_desk: AthenaDesk, service: Service) -> None:
    athena_desk.put({service.name: logs(11)})
    faults = athena_desk.process.faults
    stall = faults.arm("athena.stall", match={"query": f"*{service.name}*"}, times=None, seconds=120)
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINATED, service.model_dump_json()],
        env={**os.environ, **athena_desk.process.env},
        stderr=subprocess.PIPE,
    )
    _until(lambda: faults.struck(stall) > 0)
    process.terminate()
    _, words = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in words
    faults.clear()
    _until(lambda: not _states(athena_desk) & {"QUEUED", "RUNNING"})
    assert "CANCELLED" in _states(athena_desk)
    with leased(athena_desk.s3, Places(OUTPUT, service.name), wait_s=0):
        pass


@pytest.mark.load
def test_a_workgroup_that_forces_its_output_is_refused_before_the_first_query(
    athena_desk: AthenaDesk, service: Service
) -> None:
    athena_desk.athena.create_work_group(
        Name="forced",
        Configuration={
            "EnforceWorkGroupConfiguration": True,
            "ResultConfiguration": {"OutputLocation": "s3://data-platform-curated/theirs/"},
        },
    )
    forced = athena_desk.settings.model_copy(update={"athena_workgroup": "forced"})
    with pytest.raises(ConfigurationError, match="forces its own output"):
        athena_run.rebuild_service(forced, service, RUN)


@pytest.mark.load
def test_a_run_that_died_after_a_swap_loses_no_data_to_a_run_of_other_metrics(
    athena_desk: AthenaDesk, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = logs(12)
    athena_desk.put({service.name: events})
    athena_desk.run(service)
    put, swapped = athena_summaries.put_export, 0

    def die(*arguments: object) -> tuple[str, int]:
        nonlocal swapped
        if arguments[3] == "dau":
            swapped += 1
            raise RuntimeError("killed")
        return put(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(athena_summaries, "put_export", die)
        with pytest.raises(RuntimeError):
            athena_desk.run(service, on=date(2024, 9, 5))
    assert swapped == 1
    athena_desk.run(service, on=date(2024, 9, 6), metrics=["mau"])
    athena = Athena(athena_desk.settings)
    table = f'"log_db"."{service.prefix}_dau_summary"'
    execution = athena.run(lambda _: f"SELECT count(*), max(execution_date) FROM {table}", "after the swap")
    rows = len(Reference(events, Definitions("Asia/Seoul", min_date=service.min_data_date)).dau())
    assert list(athena.rows(execution)) == [(str(rows), "2024-09-05")]
