"""The PostgreSQL client against the embedded server: pooled, timed out, errors classified by SQLSTATE."""

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine, exc, text

from data_platform.clients import postgres
from data_platform.clients.classify import classify
from data_platform.errors import ConfigurationError, Fault, ThrottledError
from data_platform.local.process import EngineProcess, free_port
from data_platform.settings import Settings


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    engine = EngineProcess.with_free_ports("warehouse", tmp_path_factory.mktemp("warehouse")).start()
    yield engine
    engine.stop()


def settings_of(url: str) -> Settings:
    return Settings.model_validate({"postgres_url": url})


@pytest.fixture
def database(warehouse: EngineProcess) -> Iterator[Engine]:
    engine = postgres.engine(settings_of(warehouse.env["POSTGRES_URL"]))
    yield engine
    engine.dispose()


@pytest.mark.integration
def test_ping_answers_with_the_version(database: Engine) -> None:
    assert int(postgres.ping(database).split(".")[0]) >= 16


@pytest.mark.integration
def test_sessions_are_named_and_timed_out(database: Engine) -> None:
    with database.connect() as connection:
        shown = {
            name: connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("application_name", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        }
    assert shown == {
        "application_name": "data-platform",
        "statement_timeout": "5min",
        "lock_timeout": "30s",
        "idle_in_transaction_session_timeout": "10min",
    }


@pytest.mark.integration
def test_values_survive_and_a_backslash_is_a_backslash(database: Engine) -> None:
    with database.connect() as connection:
        assert connection.execute(text(r"SELECT '\' || :v"), {"v": r"it's \n ✈"}).scalar_one() == r"\it's \n ✈"


@pytest.mark.integration
def test_pool_notices_a_connection_that_died(database: Engine, warehouse: EngineProcess) -> None:
    with database.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with psycopg.connect(warehouse.env["DAGSTER_POSTGRES_URL"]) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [pid])
    with database.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


@pytest.mark.integration
@pytest.mark.parametrize(
    ("sql", "state", "fault"),
    [
        ("SELECT * FROM not_there", "42P01", Fault.PERMANENT),
        ("SELECT 1/0", "22012", Fault.PERMANENT),
        ("SELECT rolpassword FROM pg_authid", "42501", Fault.CONFIGURATION),
        ("SELECT * FROM no_schema.t", "42P01", Fault.PERMANENT),
    ],
)
def test_errors_of_statements(database: Engine, sql: str, state: str, fault: Fault) -> None:
    with pytest.raises(exc.DBAPIError) as caught, database.connect() as connection:
        connection.execute(text(sql))
    assert postgres.sqlstate(caught.value) == state
    assert postgres.classify(caught.value) is fault


@pytest.mark.integration
def test_values_stay_out_of_error_messages(database: Engine) -> None:
    with pytest.raises(exc.DBAPIError) as caught, database.connect() as connection:
        connection.execute(text("SELECT :mail FROM not_there"), {"mail": "somebody@example.com"})
    assert "somebody@example.com" not in str(caught.value)


@pytest.mark.integration
def test_serialization_failure_and_lost_connection_are_transient(database: Engine, warehouse: EngineProcess) -> None:
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE balance AS SELECT 1 AS n"))
    serial = database.execution_options(isolation_level="SERIALIZABLE")
    with serial.connect() as first, serial.connect() as second:
        for each in (first, second):
            each.execute(text("SELECT sum(n) FROM balance"))
            each.execute(text("INSERT INTO balance VALUES (1)"))
        first.commit()
        with pytest.raises(exc.DBAPIError) as caught:
            second.commit()
    assert postgres.classify(caught.value) is Fault.TRANSIENT
    with database.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with psycopg.connect(warehouse.env["DAGSTER_POSTGRES_URL"]) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(exc.DBAPIError) as caught:
            connection.execute(text("SELECT 1"))
    assert postgres.classify(caught.value) is Fault.TRANSIENT


@pytest.mark.integration
def test_lock_that_is_not_given_is_transient(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE locked (n int)"))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with database.begin() as connection:
            connection.execute(text("LOCK TABLE locked"))
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    started = time.monotonic()
    with database.connect() as connection:
        connection.execute(text("SET lock_timeout = '100ms'"))
        with pytest.raises(exc.DBAPIError) as caught:
            connection.execute(text("SELECT * FROM locked"))
    done.set()
    thread.join()
    assert time.monotonic() - started < 5
    assert postgres.classify(caught.value) is Fault.TRANSIENT


@pytest.mark.integration
def test_refused_sessions(warehouse: EngineProcess) -> None:
    url = warehouse.env["POSTGRES_URL"]
    wrong = {
        url.replace("embedded@", "guess@"): Fault.CONFIGURATION,
        url.replace("/data_platform", "/nowhere").replace("//nowhere", "//data_platform"): Fault.CONFIGURATION,
        url.replace(str(warehouse.ports["postgres"]), str(free_port())): Fault.TRANSIENT,
    }
    for refused, fault in wrong.items():
        engine = postgres.engine(settings_of(refused))
        with pytest.raises(exc.OperationalError) as caught:
            postgres.ping(engine)
        engine.dispose()
        assert postgres.classify(caught.value) is fault


@pytest.mark.unit
def test_url_has_to_be_set() -> None:
    with pytest.raises(ConfigurationError, match="POSTGRES_URL"):
        postgres.engine(Settings.model_validate({"postgres_url": None}))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (psycopg.errors.lookup("40P01")(), Fault.TRANSIENT),
        (psycopg.errors.lookup("53300")(), Fault.TRANSIENT),
        (psycopg.errors.lookup("57P01")(), Fault.TRANSIENT),
        (psycopg.errors.lookup("57014")(), Fault.PERMANENT),
        (psycopg.errors.lookup("08006")(), Fault.TRANSIENT),
        (psycopg.errors.lookup("08007")(), Fault.UNKNOWN),
        (psycopg.errors.lookup("23505")(), Fault.PERMANENT),
        (psycopg.errors.lookup("3D000")(), Fault.CONFIGURATION),
        (psycopg.InterfaceError("closed"), Fault.PERMANENT),
        (exc.TimeoutError("pool"), Fault.TRANSIENT),
        (exc.NoResultFound(), Fault.PERMANENT),
        (ThrottledError("slow"), Fault.THROTTLED),
        (RuntimeError("bug"), Fault.UNKNOWN),
    ],
)
def test_classification_by_state(error: BaseException, fault: Fault) -> None:
    assert postgres.classify(error) is fault


def test_errors_of_dagsters_own_driver_are_known_too() -> None:
    import psycopg2
    from dagster_postgres.utils import DagsterPostgresException

    away = psycopg2.OperationalError("server closed the connection unexpectedly")
    assert (postgres.classify(away), classify(away)) == (Fault.TRANSIENT, Fault.TRANSIENT)
    assert classify(psycopg2.ProgrammingError("no such table")) is Fault.PERMANENT
    tried = DagsterPostgresException("too many retries for DB connection")
    tried.__cause__ = away
    assert classify(tried) is Fault.TRANSIENT
