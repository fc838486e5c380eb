"""PostgreSQL: the engine of the ledgers and of user_statistics, and the classifier of its errors (by SQLSTATE)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from data_platform.errors import Fault, PlatformError
from data_platform.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

APPLICATION_NAME = "data-platform"
CONNECT_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 300
LOCK_TIMEOUT_S = 30
IDLE_IN_TRANSACTION_TIMEOUT_S = 600  # a worker that died with a transaction open must not hold its locks for ever
POOL_SIZE, POOL_OVERFLOW, POOL_TIMEOUT_S, POOL_RECYCLE_S = 5, 10, 30, 1800

_CONFIGURATION_CLASSES = ("28", "3D", "3F")
_TRANSIENT_CLASSES = ("08", "53")
_BY_STATE: Mapping[str, Fault] = {
    "40001": Fault.TRANSIENT,  # serialization failure
    "40P01": Fault.TRANSIENT,  # deadlock
    "55P03": Fault.TRANSIENT,  # lock time-out
    "57P01": Fault.TRANSIENT,  # shut down, crashed, starting: the transaction was rolled back
    "57P02": Fault.TRANSIENT,
    "57P03": Fault.TRANSIENT,
    "42501": Fault.CONFIGURATION,
    "40003": Fault.UNKNOWN,  # statement completion unknown
    "08007": Fault.UNKNOWN,  # transaction resolution unknown
}


def engine(settings: Settings, *, pool_size: int = POOL_SIZE, pre_ping: bool = True) -> "Engine":
    """A pooled SQLAlchemy engine of POSTGRES_URL. Nothing is connected yet; dispose of it when done.

    `pre_ping` asks a pooled connection for a sign of life before it is used: a round trip each time.

    Raises ConfigurationError when the URL is not set.
    """
    settings.require("postgres_url")
    from sqlalchemy import create_engine

    url = settings.postgres_url
    options = {
        "statement_timeout": STATEMENT_TIMEOUT_S * 1000,
        "lock_timeout": LOCK_TIMEOUT_S * 1000,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_S * 1000,
    }
    return create_engine(
        "" if url is None else url.get_secret_value(),
        pool_size=pool_size,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=POOL_TIMEOUT_S,
        pool_recycle=POOL_RECYCLE_S,
        pool_pre_ping=pre_ping,
        hide_parameters=True,  # values may be personal data; they stay out of errors and logs
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": APPLICATION_NAME,
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            "keepalives_idle": 60,
            "keepalives_interval": 15,
            "keepalives_count": 4,
        },
    )


def ping(engine: "Engine") -> str:
    """The server's version. Raises the driver's error (see `classify`)."""
    from sqlalchemy import text

    with engine.connect() as connection:
        return str(connection.execute(text("SHOW server_version")).scalar_one())


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of an error of psycopg (or psycopg2, which Dagster brings), or of SQLAlchemy around one."""
    original = getattr(error, "orig", None) or error
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    return state if isinstance(state, str) else None


def classify(error: BaseException) -> Fault:
    """What may be done about an error of SQLAlchemy, psycopg or psycopg2.

    A connection lost in the middle carries no SQLSTATE and is TRANSIENT: everything here is a transaction, which the
    server rolls back. Only a COMMIT may have come through; what is written is keyed, so that a repetition is harmless.
    """
    import psycopg
    from sqlalchemy import exc

    if isinstance(error, PlatformError):
        return error.fault
    state = sqlstate(error)
    if state is not None:
        return _classify_state(state)
    if isinstance(error, exc.TimeoutError):  # no free connection in the pool
        return Fault.TRANSIENT
    if isinstance(error, exc.DBAPIError):
        error = error.orig or error
    if isinstance(error, psycopg.OperationalError) or _of_psycopg2(error, "OperationalError"):
        return _classify_refusal(str(error))
    ours = isinstance(error, psycopg.Error | exc.SQLAlchemyError) or _of_psycopg2(error, "Error")
    return Fault.PERMANENT if ours else Fault.UNKNOWN


def _of_psycopg2(error: BaseException, name: str) -> bool:
    """Whether the error is such a one of psycopg2, which is not ours to import."""
    return any(kind.__name__ == name and kind.__module__.startswith("psycopg2") for kind in type(error).__mro__)


def _classify_state(state: str) -> Fault:
    if state in _BY_STATE:
        return _BY_STATE[state]
    if state.startswith(_CONFIGURATION_CLASSES):
        return Fault.CONFIGURATION
    return Fault.TRANSIENT if state.startswith(_TRANSIENT_CLASSES) else Fault.PERMANENT


def _classify_refusal(message: str) -> Fault:
    """libpq gives no SQLSTATE when connecting fails; the server's sentence has to do (lc_messages is C or English)."""
    refused = ("password authentication failed", "no pg_hba.conf entry", 'role "', 'database "', "no password supplied")
    return Fault.CONFIGURATION if any(words in message for words in refused) else Fault.TRANSIENT
