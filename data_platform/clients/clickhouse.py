"""ClickHouse: a client that never repeats an insert by itself, the expression that reads S3, the classifier of errors.

ClickHouse wraps: 499 is every failure of S3, 636 every failure while the structure is inferred, 252 two opposites.
So errors are classified by the innermost code and S3's HTTP status, which `inner_code` digs out, never the outer one.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from data_platform.errors import ConfigurationError, Fault, PlatformError, ThrottledError, TransientError
from data_platform.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from urllib3 import PoolManager

CLIENT_NAME = "data-platform"
CONNECT_TIMEOUT_S = 10
POOL_SIZE = 16

# Codes as the engine and the server's ErrorCodes name them.
UNKNOWN_TABLE, UNKNOWN_DATABASE = 60, 81
INCORRECT_DATA = 117
TIMEOUT_EXCEEDED = 159
QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING = 216
MEMORY_LIMIT_EXCEEDED = 241
TOO_MANY_PARTS = 252  # parts (wait) as well as partitions in a block (wrong data)
S3_ERROR = 499
STRUCTURE_ERROR = 636
POCO_EXCEPTION = 1000

_CODE = re.compile(r"Code: (\d+)\.")
_NESTED = re.compile(r"(?:Poco::Exception\. Code: (\d+), e\.code\(\)|Code: (\d+)\. DB::)")
_S3_STATUS = re.compile(r"HTTP response code: (\d+)")
_S3_NAME = re.compile(r"S3 exception: `(\w+)`")
_BARE_STATUS = re.compile(r"HTTP status (\d{3})")
_CLIENT_PREFIX = "server response: "
# What follows quotes names and values out of the data, which may say anything.
_QUOTED_TAIL = re.compile(r": while reading '|: \(in file/uri |: While executing ")

_NOT_ALLOWED = frozenset(
    {"NoSuchBucket", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
     "PermanentRedirect", "AllAccessDisabled"}
)  # fmt: skip
_BY_CODE: Mapping[int, Fault] = {
    **dict.fromkeys((UNKNOWN_TABLE, UNKNOWN_DATABASE), Fault.CONFIGURATION),
    **dict.fromkeys((192, 193, 194, 497, 511, 512, 516), Fault.CONFIGURATION),  # users, passwords, grants
    669: Fault.CONFIGURATION,  # no such named collection
    115: Fault.CONFIGURATION,  # unknown setting: the server is older than the statement
    164: Fault.CONFIGURATION,  # readonly user
    764: Fault.CONFIGURATION,  # deduplication asked for where it is impossible
    243: Fault.CONFIGURATION,  # disk full
    TIMEOUT_EXCEEDED: Fault.UNKNOWN,
    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: Fault.UNKNOWN,  # an earlier attempt is at it
    394: Fault.UNKNOWN,  # cancelled in the middle
    319: Fault.UNKNOWN,  # quorum insert without an answer
    341: Fault.UNKNOWN,
    1002: Fault.UNKNOWN,
    202: Fault.THROTTLED,  # too many simultaneous queries
    **dict.fromkeys((198, 209, 210, 279, 425, POCO_EXCEPTION), Fault.TRANSIENT),  # network
    **dict.fromkeys((225, 242, 285, 999, 473, 517), Fault.TRANSIENT),  # Keeper, replicas, locks
}


@dataclass(frozen=True)
class ErrorFacts:
    """An error taken apart: innermost ClickHouse code (None: it never came from ClickHouse), S3's HTTP status."""

    code: int | None
    http_status: int | None
    message: str
    outer_code: int | None = None
    s3_name: str | None = None  # S3's own name of the error, where it told one

    @property
    def source_gone(self) -> bool:
        """The object is not there. S3 tells a missing bucket by the same bare 404 (HEAD has no body): ask S3 which."""
        missing = self.http_status == 404 and self.s3_name != "NoSuchBucket"
        return self.outer_code == S3_ERROR and (missing or self.s3_name == "NoSuchKey")


def connect(
    settings: Settings, *, query_tags: Mapping[str, str] | None = None, database: str | None = None
) -> "Client":
    """A client over HTTP(S), safe to share between threads (it keeps no session); close it when done.

    `query_tags` go into log_comment of every statement as JSON. Neither the library nor its pool repeats a request
    that may have been executed. Raises ConfigurationError (settings, user, database), ThrottledError, TransientError.
    """
    settings.require("clickhouse_host")
    import clickhouse_connect
    from clickhouse_connect.driver.exceptions import Error

    defaults: dict[str, Any] = {}
    if query_tags:
        defaults["log_comment"] = json.dumps(dict(query_tags), sort_keys=True)
    try:
        client = clickhouse_connect.get_client(
            host=settings.clickhouse_host,
            port=settings.clickhouse_port,
            username=settings.clickhouse_user,
            password=settings.clickhouse_password.get_secret_value(),
            secure=settings.clickhouse_secure,
            database=database or "__default__",
            settings=defaults,
            client_name=CLIENT_NAME,
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=settings.clickhouse_timeout_s,
            autogenerate_session_id=False,
            query_retries=0,
            pool_mgr=_single_attempt_pool(),
        )
    except Error as error:
        raise _connection_failure(settings, error) from error
    return client


def ping(settings: Settings) -> str:
    """The server's version, once it has executed a statement. Raises what `connect` raises."""
    client = connect(settings)
    try:
        return str(client.server_version)
    finally:
        client.close()


def _single_attempt_pool() -> "PoolManager":
    """A connection pool that hides from clickhouse-connect that a connection broke after the request was sent.

    The library repeats inserts once when it sees that (1.12: data_insert and raw_insert are marked retryable); the
    server may have executed the first. An error of another class goes through its net, with the cause kept.
    """
    from clickhouse_connect.driver.httputil import get_pool_manager_options
    from urllib3 import BaseHTTPResponse, PoolManager
    from urllib3.exceptions import HTTPError

    class SingleAttemptPool(PoolManager):
        def request(self, *args: Any, **kwargs: Any) -> BaseHTTPResponse:
            kwargs["retries"] = False
            try:
                response = super().request(*args, **kwargs)
            except HTTPError as error:
                raise HTTPError(str(error)) from error
            if all(name.lower() == "x-clickhouse-progress" for name in response.headers):
                response.close()
                raise HTTPError("the connection closed before the end of the answer's headers")
            return response

    return SingleAttemptPool(**get_pool_manager_options(maxsize=POOL_SIZE))


FEWER = (
    "lower the limit of the pool clickhouse (Dagster, Deployment, Concurrency), so that fewer runs go at once. If "
    "nothing else was running, the server is too small for this day: give it more memory"
)


def _connection_failure(settings: Settings, error: BaseException) -> PlatformError:
    where = f"ClickHouse {settings.clickhouse_host}:{settings.clickhouse_port}"
    fault = classify(error)
    message = f"{where}: {inner_code(error).message}"
    if fault is Fault.CONFIGURATION:
        return ConfigurationError(message, hint="check CLICKHOUSE_USER, CLICKHOUSE_PASSWORD and the database's name")
    if fault is Fault.THROTTLED:
        return ThrottledError(message, hint=FEWER)
    return TransientError(message, hint="is it running, and CLICKHOUSE_HOST, CLICKHOUSE_PORT right?")


# Errors


def inner_code(error: BaseException) -> ErrorFacts:
    """The innermost code, S3's HTTP status and the server's words, of an error of clickhouse-connect or of a text."""
    told = str(error)
    _, found, answer = told.partition(_CLIENT_PREFIX)
    text = answer if found else told
    outer = _CODE.search(text)
    if outer is None:
        status = _BARE_STATUS.search(told)
        return ErrorFacts(getattr(error, "code", None), int(status[1]) if status else None, text)
    code = outer_code = int(outer[1])
    s3_name = http_status = None
    if outer_code in (S3_ERROR, STRUCTURE_ERROR):
        own = _QUOTED_TAIL.split(text[outer.end() :], maxsplit=1)[0]
        for nested in _NESTED.finditer(own):
            code = int(nested[1] or nested[2])
        status = _S3_STATUS.search(own)
        if status is not None and 100 <= int(status[1]) < 600:  # 2**64 - 1 stands for no answer at all
            http_status = int(status[1])
        name = _S3_NAME.search(text)
        s3_name = name[1] if name is not None else None
    return ErrorFacts(code, http_status, text.strip(), outer_code, s3_name)


def classify(error: BaseException) -> Fault:
    """What may be done about an error of clickhouse-connect."""
    facts = inner_code(error)
    if facts.outer_code is None and facts.code is None:
        return _classify_transport(error, facts)
    if facts.outer_code == S3_ERROR:
        return _classify_s3(facts)
    if facts.code == TOO_MANY_PARTS:
        return Fault.THROTTLED if "Too many parts" in facts.message else Fault.PERMANENT
    if facts.code == MEMORY_LIMIT_EXCEEDED:  # the query's own limit strikes again, the server's may not
        return Fault.PERMANENT if "Query memory limit" in facts.message else Fault.THROTTLED
    return _BY_CODE.get(facts.code or 0, Fault.PERMANENT)


def _classify_s3(facts: ErrorFacts) -> Fault:
    if facts.s3_name in _NOT_ALLOWED or facts.http_status in (301, 400, 401, 403):
        return Fault.CONFIGURATION
    if facts.s3_name == "SlowDown" or facts.http_status in (429, 503):
        return Fault.THROTTLED
    if facts.source_gone:
        return Fault.PERMANENT
    if facts.http_status is not None and facts.http_status < 500:
        return Fault.PERMANENT
    return Fault.TRANSIENT  # S3's own 5xx, or no answer: refused, reset, DNS


def _classify_transport(error: BaseException, facts: ErrorFacts) -> Fault:
    """Without an answer: never sent is transient, sent is unknown."""
    from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

    if facts.http_status is not None:  # a proxy in between
        return Fault.THROTTLED if facts.http_status in (429, 503) else Fault.UNKNOWN
    seen: BaseException | None = error
    transport = False
    while seen is not None:
        if isinstance(seen, NewConnectionError | NameResolutionError | ConnectTimeoutError | ConnectionRefusedError):
            return Fault.TRANSIENT
        transport = transport or isinstance(seen, HTTPError | OSError)
        reason = getattr(seen, "reason", None)  # urllib3 keeps the first cause there
        seen = reason if isinstance(reason, BaseException) else seen.__cause__
    if transport:
        return Fault.UNKNOWN
    from clickhouse_connect.driver.exceptions import DataError, ProgrammingError

    return Fault.PERMANENT if isinstance(error, DataError | ProgrammingError) else Fault.UNKNOWN


# SQL text


def quote_identifier(name: str) -> str:
    """The name in backticks, whatever it holds."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quote_literal(text: str) -> str:
    """The text as a string literal, for the few places that take no query parameter."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def s3_source(
    settings: Settings,
    bucket: str,
    key: str,
    *,
    structure: str | None = None,
    data_format: str = "Parquet",
    glob: bool = False,
) -> str:
    """The table function that reads `s3://bucket/key` from ClickHouse's side, without a key or secret in the text.

    `structure` ("a Int64, s String") spares the inference, which costs requests. With `glob`, `* ? {a,b}` in the key
    select several objects; without, ClickHouse could not be told to take them literally, so such a key is refused.
    """
    if not glob and (found := sorted(set(key) & set("*?{}"))):
        raise PlatformError(
            f"s3://{bucket}/{key}: ClickHouse reads {' '.join(found)} as a pattern",
            hint="rename the object; a key of the curated layout holds none of these",
        )
    url = f"{_s3_base(settings, bucket)}/{quote(key, safe='/=*?{},' if glob else '/=')}"
    arguments = [f"url = {quote_literal(url)}", f"format = {quote_literal(data_format)}"]
    if structure is not None:
        arguments.append(f"structure = {quote_literal(structure)}")
    if settings.clickhouse_s3_collection is not None:
        return f"s3({settings.clickhouse_s3_collection}, {', '.join(arguments)})"
    return f"s3({', '.join(argument.partition(' = ')[2] for argument in arguments)})"


def _s3_base(settings: Settings, bucket: str) -> str:
    endpoint = settings.clickhouse_s3_endpoint or settings.aws_endpoint_url
    if endpoint is not None:
        return f"{endpoint.rstrip('/')}/{bucket}"
    settings.require("aws_region")
    return f"https://{bucket}.s3.{settings.aws_region}.amazonaws.com"
