"""Minutes without ClickHouse and without S3 while objects keep coming: nothing is given up, all is caught up."""

import time
from pathlib import Path

import pytest

from data_platform.loading.register import TablePartition
from data_platform.local.cloud import Cloud
from tests.scenarios.loader_line_faults import StruckLine

pytestmark = [pytest.mark.load, pytest.mark.timeout(900)]
OUTAGE_S = 150.0
EVERY_S = 2.0


def live_through(line: StruckLine) -> int:
    """Objects and overwrites for the time of the outage; returns how many."""
    until = time.monotonic() + OUTAGE_S
    made = 0
    while time.monotonic() < until:
        line.random.choice([line.put, line.put, line.overwrite])()
        made += 1
        time.sleep(EVERY_S)
    return made


def attempts(line: StruckLine) -> list[int]:
    """Counted failures of every object version."""
    dataset = line.bench.dataset
    partitions = [TablePartition(dataset.domain, dataset.name, day) for day in line.days]
    records = [line.bench.warehouse.register.objects(partition).values() for partition in partitions]
    return [record.attempts for some in records for record in some]


def test_clickhouse_away_for_minutes(cloud: Cloud, tmp_path: Path) -> None:
    with StruckLine.open(cloud, tmp_path, 1) as line:
        line.chapter([])
        cloud.kill("clickhouse")
        made = live_through(line)
        waiting = line.depth()
        cloud.restart("clickhouse")
        line.settle(["ClickHouse was away"])
        assert waiting >= made > 50
        assert set(attempts(line)) == {0}
        assert not line.letters()


def test_s3_away_for_minutes(cloud: Cloud, tmp_path: Path) -> None:
    with StruckLine.open(cloud, tmp_path, 2) as line:
        line.chapter([])
        faults = cloud.faults("aws")
        bucket = line.flow.settings.curated_bucket
        away = [
            faults.arm("s3.error", match={"method": method, "bucket": bucket}, times=None, status=503)
            for method in ("GET", "HEAD")
        ]
        made = live_through(line)
        waiting = line.depth()
        assert faults.struck(away[0]) >= 3
        for fault in away:
            faults.disarm(fault)
        line.settle(["S3 was away"])
        assert waiting >= made > 50
        # Asked whether S3 is away it may answer just again: one failure of an object may count.
        assert max(attempts(line)) <= 1
        assert not line.letters()
