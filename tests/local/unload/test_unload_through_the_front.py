"""UNLOAD as a client sends it: over the wire protocol, its faults armed from another process."""

from collections.abc import Iterator
from typing import Any

import pytest
import redshift_connector

pytestmark = pytest.mark.integration


def connect(engines: Any) -> Any:
    env = engines.env
    connection = redshift_connector.connect(
        host=env["REDSHIFT_HOST"],
        port=int(env["REDSHIFT_PORT"]),
        database=env["REDSHIFT_DATABASE"],
        user=env["REDSHIFT_USER"],
        password=env["REDSHIFT_PASSWORD"],
        ssl=False,
    )
    connection.autocommit = True
    return connection


@pytest.fixture
def cursor(unload_engines: Any) -> Iterator[Any]:
    unload_engines.warehouse_faults.clear()
    connection = connect(unload_engines)
    yield connection.cursor()
    connection.close()
    unload_engines.warehouse_faults.clear()


def unload(cursor: Any, bench: Any, query: str, options: str = "CSV PARALLEL OFF MANIFEST VERBOSE") -> int:
    quoted = query.replace("\\", "\\\\").replace("'", "''")
    cursor.execute(f"UNLOAD ('{quoted}\n') TO '{bench.prefix}' IAM_ROLE default {options}")
    cursor.execute("SELECT pg_last_unload_count()")
    return int(cursor.fetchone()[0])


def test_rows_arrive_and_are_counted(cursor: Any, bench: Any) -> None:
    query = "select i, 'it''s' || coalesce(null, '') as a, '\\\\' as b from generate_series(1, 3) i -- all of it"
    assert unload(cursor, bench, query) == 3
    assert bench.read("000") == b"1,it's,\\\n2,it's,\\\n3,it's,\\\n"
    assert bench.manifest()["meta"]["record_count"] == 3


def test_the_clients_temporary_tables_are_seen(cursor: Any, bench: Any) -> None:
    cursor.execute("CREATE TEMP TABLE mine AS SELECT 42 AS answer")
    assert unload(cursor, bench, "select answer from mine") == 1
    assert bench.read("000") == b"42\n"


def test_a_refusal_has_its_sqlstate_and_leaves_the_session_usable(cursor: Any, bench: Any) -> None:
    with pytest.raises(redshift_connector.ProgrammingError) as refused:
        unload(cursor, bench, "select 1 as a limit 1")
    assert refused.value.args[0]["C"] == "42601"
    assert refused.value.args[0]["M"] == "Limit clause is not supported"
    assert unload(cursor, bench, "select 1 as a") == 1


def test_a_wrong_count_reaches_the_client(cursor: Any, bench: Any, unload_engines: Any) -> None:
    fault = unload_engines.warehouse_faults.arm("unload.wrong_count", by=5)
    assert unload(cursor, bench, "select 1 as a") == 6
    assert unload_engines.warehouse_faults.struck(fault) == 1


def test_a_dropped_connection_is_one_for_the_client(cursor: Any, bench: Any, unload_engines: Any) -> None:
    fault = unload_engines.warehouse_faults.arm("unload.die_after_files", files=1, drop=True)
    with pytest.raises((redshift_connector.Error, OSError)):
        unload(cursor, bench, "select i from generate_series(1, 100) i", "CSV")
    assert unload_engines.warehouse_faults.struck(fault) == 1
    assert bench.names() == ["0000_part_00"]
    again = connect(unload_engines)
    assert unload(again.cursor(), bench, "select 1 as a", "CSV PARALLEL OFF ALLOWOVERWRITE") == 1
    again.close()
