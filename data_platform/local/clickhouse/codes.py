"""ClickHouse's error codes as HTTP answers carry them: code out of the text, HTTP status out of the code."""

import re
from dataclasses import dataclass

BAD_ARGUMENTS = 36
NOT_IMPLEMENTED = 48
SYNTAX_ERROR = 62
READONLY = 164
ABORTED = 236
QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING = 216
SESSION_NOT_FOUND = 372
SESSION_IS_LOCKED = 373
INVALID_SESSION_TIMEOUT = 374
UNKNOWN_COMPRESSION_METHOD = 89
CANNOT_DECOMPRESS = 271
AUTHENTICATION_FAILED = 516
UNKNOWN_EXCEPTION = 1002

_NAMES = {
    BAD_ARGUMENTS: "BAD_ARGUMENTS",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
    SYNTAX_ERROR: "SYNTAX_ERROR",
    UNKNOWN_COMPRESSION_METHOD: "UNKNOWN_COMPRESSION_METHOD",
    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
    READONLY: "READONLY",
    CANNOT_DECOMPRESS: "CANNOT_DECOMPRESS",
    SESSION_NOT_FOUND: "SESSION_NOT_FOUND",
    SESSION_IS_LOCKED: "SESSION_IS_LOCKED",
    INVALID_SESSION_TIMEOUT: "INVALID_SESSION_TIMEOUT",
    AUTHENTICATION_FAILED: "AUTHENTICATION_FAILED",
    UNKNOWN_EXCEPTION: "UNKNOWN_EXCEPTION",
}
# As the server's exceptionCodeToHTTPStatus has them; every other code is a 500.
_STATUS = {
    **dict.fromkeys((194,), 401),
    **dict.fromkeys((192, 193, 497, 512, 516), 403),
    **dict.fromkeys((6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441,
                     675, 676), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511), 404),
    159: 408,
    381: 411,
    229: 413,
    779: 415,
    48: 501,
    **dict.fromkeys((76, 209, 439), 503),
}  # fmt: skip
_CODE = re.compile(r"Code: (\d+)")
_VERSION_LAST = re.compile(r"\(version [^()]*\)$")


@dataclass
class EngineError(Exception):
    """A failure as ClickHouse tells it: its code and its text ("Code: 60. DB::Exception: ... (UNKNOWN_TABLE)")."""

    code: int
    text: str

    @property
    def status(self) -> int:
        """The HTTP status a server answers with."""
        return _STATUS.get(self.code, 500)

    @property
    def fatal(self) -> bool:
        """Whether the engine has met a logical error of its own and will answer nothing else."""
        return self.code == ABORTED and "due to a fatal error" in self.text

    @classmethod
    def of(cls, error: Exception, version: str) -> "EngineError":
        """What chDB raised, without the words it puts in front, with the version a server puts behind."""
        text = str(error).strip()
        match = _CODE.search(text)
        if match is None:
            return cls.make(UNKNOWN_EXCEPTION, text, version)
        text = text[match.start() :]
        if _VERSION_LAST.search(text) is None:
            text = f"{text} (version {version})"
        return cls(int(match.group(1)), text)

    @classmethod
    def make(cls, code: int, message: str, version: str) -> "EngineError":
        """A failure the front itself finds."""
        name = f" ({_NAMES[code]})" if code in _NAMES else ""
        return cls(code, f"Code: {code}. DB::Exception: {message}{name} (version {version})")


class ChosenStatusError(EngineError):
    """A failure whose HTTP status somebody chose (a fault switch)."""

    def __init__(self, code: int, text: str, status: int) -> None:
        super().__init__(code, text)
        self._status = int(status)

    @property
    def status(self) -> int:
        """The chosen status."""
        return self._status
