"""The loader's error codes, what each means for a message, the exception that carries one, and the diagnosis of others.

Classified by the innermost code and S3's HTTP status: ClickHouse's outer codes stand for opposites.
"""

from dataclasses import dataclass
from enum import StrEnum

from data_platform.clients import aws, clickhouse
from data_platform.errors import Fault, PlatformError


class Code(StrEnum):
    """Codes of spec'd load errors, as dead letters and the history show them."""

    EVENT_SCHEMA = "E001"
    FORMAT = "E002"
    PARSE = "E003"
    TIMEOUT = "E004"
    DATABASE = "E005"
    MEMORY = "E006"
    PERMISSION = "E007"
    GONE = "E008"


@dataclass(frozen=True)
class CodeFacts:
    """What a code means, how often it is tried inside one receive (with these waits), what a person does next."""

    meaning: str
    fault: Fault
    attempts: int
    waits_s: tuple[float, ...]
    next_step: str


# What each step means in commands; a dead letter's list names ID and DOMAIN beside it.
REPLAY = "data-platform dlq replay --id ID"
DROP = "data-platform dlq drop --id ID"
BACKFILL = "data-platform backfill DATASET --from DAY --to DAY (both stand in the file's key)"
REVIEW = (
    "data-platform dlq show ID shows the message, which can never be loaded as it is. Where it names a file of the "
    f"curated bucket, that file's rows may be missing; {BACKFILL} loads those of a file that _manifest.json beside it "
    "lists, and is safe. Where it names none, nothing is missing. Have whoever may send to the load queue, by its "
    f"policy, send no more of them; then {DROP}"
)
MAKE = (
    f"its rows are missing. Where _manifest.json beside it lists it, the platform wrote it: {BACKFILL} writes it anew "
    "from its source and loads it. Where it does not, somebody else put it there: ask the dataset's owner (owner in "
    "catalog/datasets/DATASET.yaml) whether its rows are needed; if so, have them put there as Parquet, with the "
    "columns of that yaml, which is loaded by itself. Needed or not, the file that does not fit is moved out of the "
    f"bucket. Then {DROP}"
)
CORRECT = f"at its source, or the catalogue's columns; then data-platform backfill of its day, and {DROP}"
BACK = f"once data-platform doctor says that all is up, {REPLAY}"
ALONE = f"nothing tries it again by itself any more; {BACK}"
MORE = f"memory_mb of the domain in catalog/domains.yaml, or a larger ClickHouse; then {REPLAY}"
ALLOW = f"the reason names what may not be read or written; allow it, then {REPLAY}"
GONE = f"somebody deleted it before it was loaded; data-platform backfill of its day if it is needed, then {DROP}"

CODES: dict[Code, CodeFacts] = {
    Code.EVENT_SCHEMA: CodeFacts("invalid event schema", Fault.PERMANENT, 1, (), f"manual review: {REVIEW}"),
    Code.FORMAT: CodeFacts("unsupported file format", Fault.PERMANENT, 1, (), f"reprocess the file: {MAKE}"),
    Code.PARSE: CodeFacts("parse failure", Fault.PERMANENT, 1, (), f"correct the data: {CORRECT}"),
    Code.TIMEOUT: CodeFacts("connection timeout", Fault.TRANSIENT, 3, (2, 4, 8), f"by hand: {ALONE}"),
    Code.DATABASE: CodeFacts("database unavailable", Fault.TRANSIENT, 3, (2, 4, 8), f"service recovery: {BACK}"),
    Code.MEMORY: CodeFacts("memory exhaustion", Fault.TRANSIENT, 2, (5, 10), f"scale resources: {MORE}"),
    Code.PERMISSION: CodeFacts("permission denied", Fault.PERMANENT, 1, (), f"fix the policy, replay: {ALLOW}"),
    Code.GONE: CodeFacts("the object is gone", Fault.PERMANENT, 1, (), f"none, or re-create it: {GONE}"),
}


class LoadError(PlatformError):
    """A load that failed with a code; `fault` says whether it may be tried again."""

    def __init__(self, code: Code, message: str) -> None:
        facts = CODES[code]
        super().__init__(message, hint=facts.next_step, fault=facts.fault)
        self.code = code


class System(StrEnum):
    """Who is to blame for a failure that is not the object's: whose circuit breaker it concerns."""

    CLICKHOUSE = "clickhouse"
    S3 = "s3"


@dataclass(frozen=True)
class Diagnosis:
    """What an error means for the message. `system` is set where an engine, not the object, may be at fault.

    THROTTLED asks to come back later and counts no attempt; CONFIGURATION parks the domain.
    """

    code: Code
    fault: Fault
    reason: str
    system: System | None = None


CHANGED = "an object of the list has changed"  # what the guard of a list throws


def diagnose(error: BaseException) -> Diagnosis | None:
    """The meaning of any error of a load; None for one that is a bug of ours."""
    if isinstance(error, LoadError):
        return Diagnosis(error.code, error.fault, error.message)
    if isinstance(error, PlatformError):
        return Diagnosis(Code.DATABASE, error.fault, error.message)
    module = type(error).__module__.partition(".")[0]
    if module in {"clickhouse_connect", "urllib3"}:
        return _of_clickhouse(error)
    if module in {"botocore", "boto3"}:
        return _of_aws(error)
    return None


def is_mistake(error: BaseException) -> bool:
    """Whether a statement of our own, with no object's data in it, is wrong: no waiting mends it, so it is raised."""
    return diagnose(error) is None or clickhouse.classify(error) is Fault.PERMANENT


def _of_clickhouse(error: BaseException) -> Diagnosis:
    facts = clickhouse.inner_code(error)
    fault = clickhouse.classify(error)
    reason = facts.message.strip().splitlines()[0][:2000] if facts.message.strip() else type(error).__name__
    if facts.outer_code is None and facts.code is None:
        return Diagnosis(Code.DATABASE, Fault.TRANSIENT, reason, System.CLICKHOUSE)
    if CHANGED in facts.message:
        return Diagnosis(Code.TIMEOUT, Fault.TRANSIENT, reason)
    if facts.code == clickhouse.MEMORY_LIMIT_EXCEEDED:
        return Diagnosis(Code.MEMORY, Fault.TRANSIENT, reason)
    if facts.outer_code == clickhouse.S3_ERROR:
        if facts.source_gone:
            return Diagnosis(Code.GONE, Fault.PERMANENT, reason)
        if fault is Fault.CONFIGURATION:
            return Diagnosis(Code.PERMISSION, Fault.CONFIGURATION, reason, System.S3)
        if fault is Fault.PERMANENT:
            return Diagnosis(Code.PARSE, Fault.PERMANENT, reason)
        return Diagnosis(Code.TIMEOUT, Fault.TRANSIENT, reason, System.S3)
    if fault is Fault.CONFIGURATION:
        return Diagnosis(Code.DATABASE, Fault.CONFIGURATION, reason, System.CLICKHOUSE)
    if fault is Fault.THROTTLED:
        return Diagnosis(Code.DATABASE, Fault.THROTTLED, reason)
    if facts.code in {clickhouse.TIMEOUT_EXCEEDED, 209, clickhouse.POCO_EXCEPTION}:
        return Diagnosis(Code.TIMEOUT, Fault.TRANSIENT, reason, System.CLICKHOUSE)
    if fault in {Fault.TRANSIENT, Fault.UNKNOWN}:
        return Diagnosis(Code.DATABASE, Fault.TRANSIENT, reason, System.CLICKHOUSE)
    return Diagnosis(Code.PARSE, Fault.PERMANENT, reason)


def _of_aws(error: BaseException) -> Diagnosis:
    response: dict[str, dict[str, object]] = getattr(error, "response", None) or {}
    name = str(response.get("Error", {}).get("Code", ""))
    fault = aws.classify(error)
    reason = str(error)[:2000]
    if name in {"NoSuchKey", "404", "NoSuchVersion"}:
        return Diagnosis(Code.GONE, Fault.PERMANENT, reason)
    if fault is Fault.CONFIGURATION:
        return Diagnosis(Code.PERMISSION, Fault.CONFIGURATION, reason, System.S3)
    if fault is Fault.PERMANENT:
        return Diagnosis(Code.PARSE, Fault.PERMANENT, reason)
    return Diagnosis(Code.TIMEOUT, Fault.TRANSIENT, reason, System.S3)
