"""The loader's error codes, what each means for a message, and the exception that carries one."""

from dataclasses import dataclass
from enum import StrEnum

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


CODES: dict[Code, CodeFacts] = {
    Code.EVENT_SCHEMA: CodeFacts("invalid event schema", Fault.PERMANENT, 1, (), "manual review"),
    Code.FORMAT: CodeFacts("unsupported file format", Fault.PERMANENT, 1, (), "reprocess the file"),
    Code.PARSE: CodeFacts("parse failure", Fault.PERMANENT, 1, (), "correct the data"),
    Code.TIMEOUT: CodeFacts("connection timeout", Fault.TRANSIENT, 3, (2, 4, 8), "automatic"),
    Code.DATABASE: CodeFacts("database unavailable", Fault.TRANSIENT, 3, (2, 4, 8), "service recovery"),
    Code.MEMORY: CodeFacts("memory exhaustion", Fault.TRANSIENT, 2, (5, 10), "scale resources"),
    Code.PERMISSION: CodeFacts("permission denied", Fault.PERMANENT, 1, (), "fix the policy, replay"),
    Code.GONE: CodeFacts("the object is gone", Fault.PERMANENT, 1, (), "none, or re-create it"),
}


class LoadError(PlatformError):
    """A load that failed with a code; `fault` says whether it may be tried again."""

    def __init__(self, code: Code, message: str) -> None:
        facts = CODES[code]
        super().__init__(message, hint=facts.next_step, fault=facts.fault)
        self.code = code
