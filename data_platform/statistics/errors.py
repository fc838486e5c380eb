"""The words operators search for: levels, error classes, the success line; and the error a run ends with.

What belongs here: names and how they are written in a log line. What does not: deciding which applies.
"""

from dataclasses import dataclass
from enum import StrEnum

from data_platform.errors import Fault, PlatformError

EVENT_PROCESSED_SUCCESSFULLY = "EVENT_PROCESSED_SUCCESSFULLY"
COMPLETED = "processing completed successfully"
SHOWN_CHARACTERS = 200
_HIGH_CONTROL = range(0x7F, 0xA0)


class Level(StrEnum):
    """Levels as they stand in log lines and in `audit_logs`; Python's own spell WARN and FATAL otherwise."""

    INFO = "INFO"
    WARN = "WARN"  # rows were rejected, the others are applied
    ERROR = "ERROR"  # nothing, or not all of the good rows, was applied
    FATAL = "FATAL"  # the run was stopped: time-out, lost lock


class ErrorClass(StrEnum):
    """What is wrong with a row or a run."""

    VALIDATION = "ValidationError"
    USER_NOT_FOUND = "UserNotFoundError"
    PROCESSING = "ProcessingError"


@dataclass(frozen=True, slots=True)
class RowError:
    """One record that is not applied, or (`column` None) a whole file that is not; `line` is physical, from 1."""

    error_class: ErrorClass
    file: str
    line: int
    column: str | None
    value: str | None
    rule: str
    reason: str
    lines: int = 1  # physical lines the record spans
    user_id: str | None = None  # where the record has one that is well-formed

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        value = "" if self.value is None else f" value={self.value!r}"
        column = "" if self.column is None else f" column={self.column}"
        return f"{self.error_class} {where}{column}{value} rule={self.rule}: {self.reason}"


class ProcessingError(PlatformError):
    """The database, S3 or the time-out stopped a run; the chunks that were committed stay, a rerun does the rest."""

    error_class = ErrorClass.PROCESSING

    def __init__(
        self,
        message: str,
        *,
        file: str,
        rule: str,
        level: Level = Level.ERROR,
        hint: str | None = "run it again: chunks that are applied are left alone",
        fault: Fault | None = None,
    ) -> None:
        super().__init__(f"{ErrorClass.PROCESSING} {file}: {message}", hint=hint, fault=fault)
        self.reason = message
        self.file = file
        self.rule = rule
        self.level = level


class FileLockedError(PlatformError):
    """Another run works on this file, and went on doing so for as long as was waited."""

    fault = Fault.TRANSIENT


def shown(text: str) -> str:
    """`text` for a log, a table or a spreadsheet: control characters escaped (PostgreSQL takes no NUL), shortened."""
    rest = len(text) - SHOWN_CHARACTERS
    kept = text[:SHOWN_CHARACTERS]
    if not kept.isprintable():
        kept = "".join(character if _harmless(character) else _escaped(character) for character in kept)
    return kept if rest <= 0 else f"{kept}... ({len(text)} characters)"


def _harmless(character: str) -> bool:
    code = ord(character)
    return code >= 0x20 and code not in _HIGH_CONTROL and not 0xD800 <= code <= 0xDFFF


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
