"""The Redshift client against the embedded warehouse: sessions as set, cancelling from outside, errors classified."""

import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redshift_connector

from data_platform.clients import redshift
from data_platform.errors import ConfigurationError, Fault, PlatformError, ThrottledError, TransientError
from data_platform.local.process import EngineProcess, free_port
from data_platform.settings import Settings


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    engine = EngineProcess.with_free_ports("warehouse", tmp_path_factory.mktemp("warehouse")).start()
    yield engine
    engine.stop()


def settings_of(engine: EngineProcess, **changes: object) -> Settings:
    env = engine.env
    values: dict[str, object] = {
        "redshift_host": env["REDSHIFT_HOST"],
        "redshift_port": int(env["REDSHIFT_PORT"]),
        "redshift_database": env["REDSHIFT_DATABASE"],
        "redshift_user": env["REDSHIFT_USER"],
        "redshift_password": env["REDSHIFT_PASSWORD"],
        "redshift_ssl": False,
        "redshift_query_group": r"it's a \ group",
        "redshift_statement_timeout_s": 90,
    }
    return Settings.model_validate({**values, **changes})


def one(connection: redshift_connector.Connection, sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def error_of(connection: redshift_connector.Connection, sql: str) -> BaseException:
    with pytest.raises((redshift_connector.Error, OSError, struct.error)) as caught:
        one(connection, sql)
    return caught.value


@pytest.mark.integration
def test_session_is_set_up_as_the_settings_say(warehouse: EngineProcess) -> None:
    with redshift.connect(settings_of(warehouse)) as connection:
        assert connection.autocommit
        assert connection.max_prepared_statements == 0
        assert one(connection, "SHOW statement_timeout") == "90s"
        assert one(connection, "SHOW query_group") == r"it's a \ group"
        assert one(connection, "SHOW application_name") == "data-platform"
        assert connection._usock.gettimeout() == 120  # above Redshift's own limit


@pytest.mark.integration
def test_ping_answers_with_the_version(warehouse: EngineProcess) -> None:
    assert "Redshift" in redshift.ping(settings_of(warehouse))


@pytest.mark.integration
def test_statement_timeout_of_the_settings_ends_a_statement(warehouse: EngineProcess) -> None:
    with redshift.connect(settings_of(warehouse, redshift_statement_timeout_s=1)) as connection:
        error = error_of(connection, "SELECT pg_sleep(30)")
    assert redshift.describe(error)[0] == "57014"
    assert redshift.classify(error) is Fault.PERMANENT


@pytest.mark.integration
def test_cancel_from_another_thread_ends_it_within_half_a_second(warehouse: EngineProcess) -> None:
    settings = settings_of(warehouse)
    with redshift.connect(settings) as connection:
        key = redshift.cancel_key(connection, settings)
        assert key.pid == one(connection, "SELECT pg_backend_pid()")
        assert "key" not in repr(key).replace("CancelKey", "")
        cancelled: list[float] = []

        def cancel() -> None:
            time.sleep(0.3)
            cancelled.append(time.monotonic())
            redshift.cancel(key)

        thread = threading.Thread(target=cancel)
        thread.start()
        error = error_of(connection, "SELECT pg_sleep(30)")
        took = time.monotonic() - cancelled[0]
        thread.join()
        assert redshift.describe(error)[0] == "57014"
        assert took < 0.5
        assert one(connection, "SELECT 1") == 1


@pytest.mark.integration
def test_connect_says_what_is_wrong(warehouse: EngineProcess) -> None:
    with pytest.raises(ConfigurationError, match=r"password authentication failed.*\[28P01\]") as caught:
        redshift.connect(settings_of(warehouse, redshift_password="secret-guess"))
    assert "secret-guess" not in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"does not exist.*\[3D000\]"):
        redshift.connect(settings_of(warehouse, redshift_database="nowhere"))
    with pytest.raises(ConfigurationError, match="REDSHIFT_HOST"):
        redshift.connect(Settings.model_validate({"redshift_host": None}))
    with pytest.raises(TransientError, match="cannot be reached"):
        redshift.connect(settings_of(warehouse, redshift_port=free_port()))
    with pytest.raises(TransientError, match="refuses SSL"):
        redshift.connect(settings_of(warehouse, redshift_ssl=True))


@pytest.mark.integration
def test_connection_limit_is_throttling(warehouse: EngineProcess) -> None:
    fault = warehouse.faults.arm("redshift.refuse_connection", sqlstate="53300", message="too many connections")
    with pytest.raises(ThrottledError, match="too many connections"):
        redshift.connect(settings_of(warehouse))
    assert warehouse.faults.struck(fault) == 1


@pytest.mark.integration
@pytest.mark.parametrize("when", ["before", "after"])
def test_lost_connection_is_an_unknown_outcome(warehouse: EngineProcess, when: str) -> None:
    with redshift.connect(settings_of(warehouse)) as connection:
        fault = warehouse.faults.arm("redshift.drop_connection", match={"sql": "SELECT 'lost'"}, when=when)
        error = error_of(connection, "SELECT 'lost'")
    assert warehouse.faults.struck(fault) == 1
    assert redshift.classify(error) is Fault.UNKNOWN
    assert redshift.describe(error)[0] is None
    assert redshift.describe(error)[1]


@pytest.mark.integration
def test_session_ended_by_an_administrator_is_an_unknown_outcome(warehouse: EngineProcess) -> None:
    settings = settings_of(warehouse)
    with redshift.connect(settings) as victim, redshift.connect(settings) as other:
        pid = one(victim, "SELECT pg_backend_pid()")
        timer = threading.Timer(0.3, one, (other, f"SELECT pg_terminate_backend({pid})"))
        timer.start()
        error = error_of(victim, "SELECT pg_sleep(30)")
        timer.join()
    assert redshift.classify(error) is Fault.UNKNOWN


@pytest.mark.integration
@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("SELECT * FROM not_there", Fault.PERMANENT),
        ("SELEC 1", Fault.PERMANENT),
        ("SELECT 1/0", Fault.PERMANENT),
        ("SELECT 'x'::int", Fault.PERMANENT),
        ("SELECT rolpassword FROM pg_authid", Fault.CONFIGURATION),
    ],
)
def test_errors_the_engine_really_makes(warehouse: EngineProcess, sql: str, fault: Fault) -> None:
    with redshift.connect(settings_of(warehouse)) as connection:
        error = error_of(connection, sql)
    assert redshift.classify(error) is fault


@pytest.mark.integration
def test_serializable_isolation_violation_is_transient(warehouse: EngineProcess) -> None:
    with redshift.connect(settings_of(warehouse)) as connection:
        armed = warehouse.faults.arm("redshift.error", match={"sql": "SELECT 5"})
        error = error_of(connection, "SELECT 5")
    assert warehouse.faults.struck(armed) == 1
    assert redshift.classify(error) is Fault.TRANSIENT
    assert "Serializable isolation violation" in redshift.describe(error)[1]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("state", "message", "fault"),
    [
        ("XX000", "S3ServiceException:Please reduce your request rate.,Status 503,Error SlowDown", Fault.THROTTLED),
        ("XX000", "S3ServiceException:Access Denied,Status 403,Error AccessDenied", Fault.CONFIGURATION),
        ("XX000", "User arn:... is not authorized to assume IAM Role arn:...", Fault.CONFIGURATION),
        ("XX000", "Specified unload destination on S3 is not empty.", Fault.PERMANENT),
        ("XX000", "1023", Fault.TRANSIENT),
        ("40P01", "deadlock detected", Fault.TRANSIENT),
        ("57P03", "the database system is starting up", Fault.TRANSIENT),
        ("53200", "out of memory", Fault.TRANSIENT),
        ("53300", "too many connections", Fault.THROTTLED),
        ("08006", "connection failure", Fault.UNKNOWN),
        ("08001", "could not connect", Fault.TRANSIENT),
        ("28000", "no entry", Fault.CONFIGURATION),
    ],
)
def test_classification_by_state_and_words(state: str, message: str, fault: Fault) -> None:
    error = redshift_connector.ProgrammingError({"S": "ERROR", "C": state, "M": message})
    assert redshift.classify(error) is fault


@pytest.mark.unit
def test_classification_of_what_is_no_answer() -> None:
    assert redshift.classify(redshift_connector.InterfaceError("BrokenPipe")) is Fault.UNKNOWN
    assert redshift.classify(struct.error("unpack requires a buffer of 5 bytes")) is Fault.UNKNOWN
    assert redshift.classify(TimeoutError("timed out")) is Fault.UNKNOWN
    assert redshift.classify(redshift_connector.NotSupportedError("no")) is Fault.PERMANENT
    assert redshift.classify(PlatformError("x", fault=Fault.TRANSIENT)) is Fault.TRANSIENT


@pytest.mark.unit
@pytest.mark.parametrize(("text", "expected"), [("a", "'a'"), ("it's", "'it''s'"), ("\\'", "'\\\\'''")])
def test_literals_escape_both_characters(text: str, expected: str) -> None:
    assert redshift.literal(text) == expected


@pytest.mark.unit
def test_importing_the_client_imports_no_driver() -> None:
    import subprocess
    import sys

    code = "import sys, data_platform.clients.redshift; sys.exit('redshift_connector' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
