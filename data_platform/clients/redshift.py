"""Redshift: sessions, cancelling from outside, and the classifier of the driver's errors.

The driver has no cancel and no time-out of its own: the session gets a statement_timeout, and a CancelRequest goes
over a second socket. Results are never exported through it (it materialises them): that is UNLOAD's work.
"""

import re
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from data_platform.errors import ConfigurationError, Fault, PlatformError, ThrottledError, TransientError
from data_platform.settings import Settings

if TYPE_CHECKING:
    import ssl

    from redshift_connector import Connection

APPLICATION_NAME = "data-platform"
CONNECT_TIMEOUT_S = 10
# The socket waits longer than Redshift's own limit, so that a time-out is answered (57014) and a dead peer is noticed.
ANSWER_MARGIN_S = 30
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 60, 15, 4  # load balancers drop idle flows at 350 s
CANCEL_TIMEOUT_S = 5

_SSL_REQUEST = struct.pack("!II", 8, 80877103)
_CANCEL_REQUEST = 80877102
_THROTTLED = re.compile(r"SlowDown|Rate exceeded|Throttl|TooManyRequests|reduce your request rate|ServiceUnavailable")
_S3_HICCUP = re.compile(r"S3ServiceException.*(InternalError|Status 500|RequestTimeout)")
_NOT_ALLOWED = re.compile(
    r"not authorized|AccessDenied|Access Denied|NoSuchBucket|PermanentRedirect|InvalidAccessKeyId"
)
_SERIALIZATION = re.compile(r"\b1023\b|[Ss]erializable isolation violation")
_BY_CLASS: Mapping[str, Fault] = {
    "08": Fault.UNKNOWN,
    "28": Fault.CONFIGURATION,
    "3D": Fault.CONFIGURATION,
    "53": Fault.TRANSIENT,
}
_BY_STATE: Mapping[str, Fault] = {
    "57014": Fault.PERMANENT,  # our own cancel, or the time-out: the same statement takes as long again
    "57P01": Fault.UNKNOWN,  # ended by an administrator in the middle of it
    "57P02": Fault.UNKNOWN,
    "57P03": Fault.TRANSIENT,  # not accepting connections yet
    "08001": Fault.TRANSIENT,  # never connected, so nothing happened
    "08004": Fault.TRANSIENT,
    "40001": Fault.TRANSIENT,
    "40P01": Fault.TRANSIENT,
    "53300": Fault.THROTTLED,  # connection limit
    "42501": Fault.CONFIGURATION,
}


@dataclass(frozen=True)
class CancelKey:
    """What is needed to cancel what a session runs, from another thread or process. The key is a secret."""

    host: str
    port: int
    ssl: bool
    key: bytes = field(repr=False)

    @property
    def pid(self) -> int:
        """Process id of the session in the warehouse, as the system views name it."""
        return int(struct.unpack_from("!i", self.key)[0])


def connect(settings: Settings) -> "Connection":
    """A session with autocommit, the time-out and the query group of the settings; a context manager that closes it.

    Raises ConfigurationError (settings, password, database), ThrottledError (connection limit) or TransientError
    (not reached, not ready).
    """
    settings.require("redshift_host", "redshift_user", "redshift_password")
    import redshift_connector

    password = settings.redshift_password
    try:
        connection = redshift_connector.connect(
            host=settings.redshift_host,
            port=settings.redshift_port,
            database=settings.redshift_database,
            user=settings.redshift_user,
            password=None if password is None else password.get_secret_value(),
            ssl=settings.redshift_ssl,
            sslmode="verify-full",
            timeout=CONNECT_TIMEOUT_S,
            application_name=APPLICATION_NAME,
            max_prepared_statements=0,
            tcp_keepalive=True,
            tcp_keepalive_idle=KEEPALIVE_IDLE_S,
            tcp_keepalive_interval=KEEPALIVE_INTERVAL_S,
            tcp_keepalive_count=KEEPALIVE_COUNT,
        )
    except Exception as error:
        failure = _connect_failure(error, settings)
        if failure is None:
            raise
        raise failure from error
    try:
        connection.autocommit = True
        _socket(connection).settimeout(settings.redshift_statement_timeout_s + ANSWER_MARGIN_S)
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout TO {settings.redshift_statement_timeout_s * 1000}")
            cursor.execute(f"SET query_group TO {literal(settings.redshift_query_group)}")
    except BaseException as error:
        with suppress(Exception):  # a session that is lost cannot be closed either
            connection.close()
        # Nothing was asked of it yet: a session lost now is one that was never there.
        failure = _connect_failure(error, settings) if isinstance(error, Exception) and is_lost(error) else None
        if failure is None:
            raise
        raise failure from error
    return connection


def ping(settings: Settings) -> str:
    """Connect, ask for the version, disconnect. Raises as `connect`."""
    with connect(settings) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT version()")
        row = cast("list[str]", cursor.fetchone())
        return row[0]


def cancel_key(connection: "Connection", settings: Settings) -> CancelKey:
    """The key that cancels what `connection` runs. Take it before a statement starts."""
    key = connection._backend_key_data  # pyright: ignore[reportPrivateUsage]
    if key is None or settings.redshift_host is None:
        raise PlatformError("the warehouse gave no cancel key")
    return CancelKey(settings.redshift_host, settings.redshift_port, settings.redshift_ssl, key)


def cancel(key: CancelKey) -> None:
    """Ask the warehouse to cancel what that session runs; it then fails with 57014. No answer is ever given.

    Raises OSError when the warehouse cannot be reached; a session that is idle or gone is left alone.
    """
    with socket.create_connection((key.host, key.port), timeout=CANCEL_TIMEOUT_S) as plain:
        if key.ssl:
            import ssl

            plain.sendall(_SSL_REQUEST)
            if plain.recv(1) != b"S":
                raise ConnectionError(f"{key.host} refuses TLS; DATA_PLATFORM_REDSHIFT_SSL=false goes without")
            with _tls_context().wrap_socket(plain, server_hostname=key.host) as secure:
                _send_cancel(secure, key)
                # The server closes without a TLS farewell.
                try:
                    secure.recv(1)
                except ssl.SSLError:
                    return
        else:
            _send_cancel(plain, key)
            plain.recv(1)


def literal(text: str) -> str:
    """`text` as a literal of Redshift, where a backslash escapes and so does a doubled quote."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def describe(error: BaseException) -> tuple[str | None, str]:
    """SQLSTATE (None when the warehouse gave none) and the message with its detail, in the warehouse's words."""
    fields = _fields(error)
    if not fields:
        return None, str(error) or type(error).__name__
    message = fields.get("M", "")
    detail = fields.get("D")
    return fields.get("C"), f"{message} ({detail.strip()})" if detail else message


def classify(error: BaseException) -> Fault:
    """What may be done about an error of the driver or of `connect`.

    A lost connection is UNKNOWN: the statement may have been executed, S3 and the views have to be read first.
    """
    import redshift_connector

    if isinstance(error, PlatformError):
        return error.fault
    state, message = describe(error)
    if state is not None:
        return _classify_state(state, message)
    if is_lost(error):
        return Fault.UNKNOWN
    return Fault.PERMANENT if isinstance(error, redshift_connector.Error) else Fault.UNKNOWN


def is_lost(error: BaseException) -> bool:
    """Whether the session was lost or ended from outside in the middle: its statement may still be executed."""
    import redshift_connector

    state, _ = describe(error)
    if state is not None:
        return state.startswith("08") or state in {"57P01", "57P02"}
    # The driver reads past the end of a lost connection: struct.error is how it says so.
    return isinstance(
        error, OSError | struct.error | redshift_connector.InterfaceError | redshift_connector.OperationalError
    )


def _classify_state(state: str, message: str) -> Fault:
    by_message = _classify_message(state, message)
    if by_message is not None:
        return by_message
    return _BY_STATE.get(state) or _BY_CLASS.get(state[:2], Fault.PERMANENT)


def _classify_message(state: str, message: str) -> Fault | None:
    """What only the words tell: 1023, and S3's answers, which come under XX000."""
    if _SERIALIZATION.search(message):
        return Fault.TRANSIENT
    if state.startswith("XX"):
        if _NOT_ALLOWED.search(message):
            return Fault.CONFIGURATION
        if _THROTTLED.search(message):
            return Fault.THROTTLED
        if _S3_HICCUP.search(message):
            return Fault.TRANSIENT
    return None


NO_SESSION = (
    "lower the limit of the pool redshift (Dagster, Deployment, Concurrency), so that fewer runs go at once. If few "
    "runs of the platform were going, others hold the sessions: as a superuser of the cluster (anybody else sees only "
    "his own sessions, and may not get in now), SELECT user_name, count(*) FROM stv_sessions GROUP BY 1 shows who; ask "
    "them to close theirs"
)


def _connect_failure(error: Exception, settings: Settings) -> PlatformError | None:
    """The failure of a connect in the platform's words; None when it is not the connection's failure."""
    state, message = describe(error)
    where = f"{settings.redshift_host}:{settings.redshift_port}/{settings.redshift_database}"
    fault = classify(error)
    if state is None and fault is Fault.UNKNOWN:  # no session yet: nothing can have happened
        return TransientError(f"Redshift {where} cannot be reached: {message}", hint="data-platform doctor")
    if fault is Fault.CONFIGURATION:
        return ConfigurationError(
            f"Redshift {where} refuses the session: {message} [{state}]",
            hint="check REDSHIFT_USER, REDSHIFT_PASSWORD, REDSHIFT_DATABASE",
        )
    if fault is Fault.THROTTLED:
        return ThrottledError(
            f"Redshift {where} takes no more sessions: {message} [{state}]",
            hint=NO_SESSION,
        )
    if state is not None:
        return TransientError(
            f"Redshift {where} is not ready: {message} [{state}]", hint="is the cluster paused or restarting? try again"
        )
    return None


def _fields(error: BaseException) -> Mapping[str, str]:
    """The fields of the ErrorResponse the driver keeps as the exception's only argument."""
    first = error.args[0] if error.args else None
    return cast("Mapping[str, str]", first) if isinstance(first, Mapping) else {}


def _socket(connection: "Connection") -> socket.socket:
    return cast("socket.socket", connection._usock)  # pyright: ignore[reportPrivateUsage]


def _send_cancel(connection: socket.socket, key: CancelKey) -> None:
    connection.sendall(struct.pack("!II", 8 + len(key.key), _CANCEL_REQUEST) + key.key)


def _tls_context() -> "ssl.SSLContext":
    """Verifies as the driver does: the system's authorities and the bundle it ships."""
    import ssl
    from importlib.resources import as_file, files

    context = ssl.create_default_context()
    with as_file(files("redshift_connector") / "files" / "redshift-ca-bundle.crt") as bundle:
        context.load_verify_locations(bundle)
    return context
