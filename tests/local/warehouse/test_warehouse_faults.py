"""The fault switches of the front: each is shown to have struck, and the next statement works."""

import time

import pytest
import redshift_connector

from data_platform.local.process import EngineProcess
from tests.local.warehouse.conftest import redshift_session, rows

pytestmark = pytest.mark.integration


def test_refused_connection_is_closed_or_told_why(warehouse: EngineProcess) -> None:
    closed = warehouse.faults.arm("redshift.refuse_connection", match={"user": "data_platform"})
    with pytest.raises(redshift_connector.Error):
        redshift_session(warehouse)
    told = warehouse.faults.arm("redshift.refuse_connection", sqlstate="53300", message="too many connections")
    with pytest.raises(redshift_connector.ProgrammingError) as caught:
        redshift_session(warehouse)
    assert caught.value.args[0]["C"] == "53300"
    assert warehouse.faults.struck(closed) == warehouse.faults.struck(told) == 1
    with redshift_session(warehouse) as connection:
        assert rows(connection, "SELECT 1") == [(1,)]


@pytest.mark.parametrize(("when", "executed"), [("before", 0), ("after", 1)])
def test_connection_dropped_around_a_statement(warehouse: EngineProcess, when: str, executed: int) -> None:
    with redshift_session(warehouse) as connection:
        rows(connection, f"CREATE TABLE dropped_{when} (n int)")
        fault = warehouse.faults.arm("redshift.drop_connection", match={"sql": "INSERT*"}, when=when)
        with pytest.raises(redshift_connector.Error) as caught:
            rows(connection, f"INSERT INTO dropped_{when} VALUES (1)")
        assert not isinstance(caught.value.args[0], dict)  # no answer at all, not an error of the warehouse
    assert warehouse.faults.struck(fault) == 1
    with redshift_session(warehouse) as connection:
        assert rows(connection, f"SELECT count(*) FROM dropped_{when}") == [(executed,)]


def test_injected_error_is_1023_unless_told_otherwise(warehouse: EngineProcess) -> None:
    with redshift_session(warehouse) as connection:
        rows(connection, "CREATE TABLE contended (n int)")
        first = warehouse.faults.arm("redshift.error", match={"sql": "INSERT INTO contended*"})
        with pytest.raises(redshift_connector.ProgrammingError) as caught:
            rows(connection, "INSERT INTO contended VALUES (1)")
        assert caught.value.args[0]["M"] == "1023"
        assert "Serializable isolation violation" in caught.value.args[0]["D"]
        second = warehouse.faults.arm("redshift.error", sqlstate="40001", message="again, please", skip=1)
        rows(connection, "INSERT INTO contended VALUES (2)")
        with pytest.raises(redshift_connector.ProgrammingError) as caught:
            rows(connection, "INSERT INTO contended VALUES (3)")
        assert (caught.value.args[0]["C"], caught.value.args[0]["M"]) == ("40001", "again, please")
        assert warehouse.faults.struck(first) == warehouse.faults.struck(second) == 1
        assert rows(connection, "SELECT n FROM contended") == [(2,)]


def test_delayed_statement_is_late_but_right(warehouse: EngineProcess) -> None:
    with redshift_session(warehouse) as connection:
        fault = warehouse.faults.arm("redshift.delay", match={"sql": "SELECT 'late'*"}, seconds=0.5)
        started = time.monotonic()
        assert rows(connection, "SELECT 'late'") == [("late",)]
        assert time.monotonic() - started >= 0.5
        assert warehouse.faults.struck(fault) == 1
