"""How an answer goes out: whole or in chunks, compressed or not, and the exception a stream ends with.

Belongs here: headers, encodings, the frame of a late exception. Does not: where the bytes come from.
"""

import importlib
import secrets
import string
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

CONTENT_TYPES = {
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tabseparatedwithnames": "text/tab-separated-values; charset=UTF-8; header=present",
    "tabseparatedwithnamesandtypes": "text/tab-separated-values; charset=UTF-8; header=present",
    "csv": "text/csv; charset=UTF-8; header=absent",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "json": "application/json; charset=UTF-8",
    "jsoncompact": "application/json; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "pretty": "text/plain; charset=UTF-8",
    "prettycompact": "text/plain; charset=UTF-8",
    "values": "text/plain; charset=UTF-8",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.file",
    "arrowstream": "application/vnd.apache.arrow.stream",
}
_TAG_LENGTH = 16


class Compressor(Protocol):
    """One compressed stream."""

    def compress(self, data: bytes, /) -> bytes:
        """Compressed bytes that are ready."""
        ...

    def flush(self) -> bytes:
        """The rest, with the stream's end."""
        ...


class _Lz4:
    def __init__(self) -> None:
        self._frame = importlib.import_module("lz4.frame").LZ4FrameCompressor()
        self._begun = False

    def compress(self, data: bytes, /) -> bytes:
        head = b"" if self._begun else self._frame.begin()
        self._begun = True
        return head + self._frame.compress(data)

    def flush(self) -> bytes:
        head = b"" if self._begun else self._frame.begin()
        return head + self._frame.flush()


def _zstd() -> Compressor:
    return importlib.import_module("backports.zstd").ZstdCompressor(level=1)


# In the order of preference: fastest first, since client and engine share two cores.
COMPRESSORS: Mapping[str, Callable[[], Compressor]] = {
    "lz4": _Lz4,
    "zstd": _zstd,
    "gzip": lambda: zlib.compressobj(3, wbits=31),
    "deflate": lambda: zlib.compressobj(3),
}


def choose_encoding(accepted: str) -> str | None:
    """The encoding for an Accept-Encoding header; None for plain bytes."""
    names = {part.split(";")[0].strip().lower() for part in accepted.split(",")}
    return next((name for name in COMPRESSORS if name in names), None)


def content_type(output_format: str) -> str:
    """The Content-Type of a format."""
    return CONTENT_TYPES.get(output_format.lower(), "application/octet-stream")


def new_tag() -> str:
    """The tag that marks this answer's exception, should one come: 16 lower-case letters, not to be guessed."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(_TAG_LENGTH))


def late_exception(text: str, tag: str) -> bytes:
    """What a server (25.11 and later) writes behind the rows when the query fails after the status line has gone."""
    message = text.encode() + b"\n"
    frame = f"{len(message)} {tag}\r\n__exception__\r\n".encode()
    return f"\r\n__exception__\r\n{tag}\r\n".encode() + message + frame
