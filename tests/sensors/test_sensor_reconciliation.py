"""The daily comparison with S3: every day is compared, a repeated tick starts nothing, an outage costs no day."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from data_platform.jobs.loading import reconciliation_job
from data_platform.sensors.reconciliation import DAYS, reconciliation_schedule

pytestmark = pytest.mark.unit


def test_a_hundred_days_of_repeated_ticks_and_failing_runs_leave_no_day_out(chance: random.Random) -> None:
    job = reconciliation_job()
    schedule = reconciliation_schedule(job, dg.DefaultScheduleStatus.STOPPED)
    first = datetime(2024, 1, 1, 3, 45, tzinfo=UTC)
    started: dict[str, list[str]] = {}
    evaluated = 0
    with dg.DagsterInstance.ephemeral() as instance:
        for number in range(100):
            for _ in range(chance.randint(1, 3)):
                evaluated += 1
                at = first + timedelta(days=number)
                with dg.build_schedule_context(instance=instance, scheduled_execution_time=at) as context:
                    (request,) = schedule.evaluate_tick(context).run_requests or []
                days = request.run_config["ops"]["load_what_is_missing"]["config"]["days"]
                assert started.setdefault(str(request.run_key), days) == days
    assert evaluated > len(started) == 100
    outages = {number for number in range(100) if number % 7 == 0 or number % 7 == 1}  # two days out of seven
    compared = Counter(day for number, days in enumerate(started.values()) if number not in outages for day in days)
    wanted = {(first + timedelta(days=n - 1)).date().isoformat() for n in range(1, 98)}
    assert wanted <= set(compared)
    assert max(compared.values()) == DAYS
