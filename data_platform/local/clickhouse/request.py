"""One HTTP request as the front sees it: parameters, credentials, and a body that is read piece by piece.

Belongs here: chunked and sized bodies, content encodings, multipart forms. Does not: what the statement means.
"""

import base64
import binascii
import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from io import BufferedIOBase
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

PIECE = 1 << 20
MAX_FORM = 256 << 20
# Parameters of the interface itself; every other parameter is a setting, `param_*` a query parameter.
INTERFACE_PARAMETERS = frozenset(
    {"query", "database", "default_format", "query_id", "session_id", "session_timeout", "session_check", "compress",
     "decompress", "client_protocol_version", "wait_end_of_query", "role", "user", "password", "quota_key",
     "stacktrace", "buffer_size", "close_session", "http_headers_progress_interval_ms",
     "send_progress_in_http_headers"}
)  # fmt: skip


class UnsupportedEncodingError(Exception):
    """The request's Content-Encoding is not one the front can read."""


class BrokenBodyError(Exception):
    """The body ended early or its compression is damaged."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _lz4() -> _Decompressor:
    return importlib.import_module("lz4.frame").LZ4FrameDecompressor()


def _zstd() -> _Decompressor:
    return importlib.import_module("backports.zstd").ZstdDecompressor()


DECOMPRESSORS: Mapping[str, Callable[[], _Decompressor]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "deflate": zlib.decompressobj,
    "lz4": _lz4,
    "zstd": _zstd,
    "xz": lzma.LZMADecompressor,
    "bz2": bz2.BZ2Decompressor,
}


def decompressed(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """The plain bytes; a body may be several frames or members after one another, as clickhouse-connect sends them.

    Raises UnsupportedEncodingError, and BrokenBodyError for damaged or truncated data.
    """
    if encoding == "br":
        yield from _brotli(pieces)
        return
    try:
        make = DECOMPRESSORS[encoding]
    except KeyError:
        raise UnsupportedEncodingError(encoding) from None
    current: _Decompressor | None = None
    for piece in pieces:
        rest = piece
        while rest:
            if current is None or current.eof:
                current = make()
            try:
                plain = current.decompress(rest)
            except Exception as error:  # each library raises a class of its own, lz4 a bare RuntimeError
                raise BrokenBodyError(f"Content-Encoding {encoding}: {error}") from error
            if plain:
                yield plain
            rest = current.unused_data if current.eof else b""
    if current is not None and not current.eof:
        raise BrokenBodyError(f"Content-Encoding {encoding}: unexpected end of data")


def _brotli(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        module = importlib.import_module("brotli")
    except ImportError:
        raise UnsupportedEncodingError("br") from None
    current = module.Decompressor()
    try:
        for piece in pieces:
            yield current.process(piece)
    except module.error as error:
        raise BrokenBodyError(f"Content-Encoding br: {error}") from error
    if not current.is_finished():
        raise BrokenBodyError("Content-Encoding br: unexpected end of data")


class Body:
    """A request's body, decoded, read at most once and never kept whole unless somebody asks for it."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._ahead = b""
        self._ended = False

    def peek(self, size: int) -> bytes:
        """At least the first `size` bytes, or all there is; they stay unread."""
        parts, length = [self._ahead], len(self._ahead)
        while length < size and not self._ended:
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
                break
            parts.append(piece)
            length += len(piece)
        self._ahead = b"".join(parts)
        return self._ahead

    def ended(self) -> bool:
        """Whether everything has been peeked at."""
        return self._ended

    def rest(self, skip: int = 0) -> Iterator[bytes]:
        """What is unread, without its first `skip` bytes (which must have been peeked at)."""
        first, self._ahead = self._ahead[skip:], b""
        if first:
            yield first
        yield from self._pieces
        self._ended = True

    def read(self) -> bytes:
        """All of it."""
        return b"".join(self.rest())


def raw_pieces(stream: BufferedIOBase, headers: Message) -> Iterator[bytes]:
    """The body's bytes as they come in, by Content-Length or chunked. Raises BrokenBodyError when it ends early."""
    if "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        yield from _chunks(stream)
        return
    try:
        remaining = int(headers.get("Content-Length") or 0)
    except ValueError:
        raise BrokenBodyError("Content-Length is not a number") from None
    while remaining > 0:
        piece = stream.read(min(remaining, PIECE))
        if not piece:
            raise BrokenBodyError("the connection closed before the end of the body")
        remaining -= len(piece)
        yield piece


def _chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    while True:
        line = stream.readline(1024)
        try:
            remaining = int(line.split(b";")[0], 16)
        except ValueError:
            raise BrokenBodyError("the connection closed between two chunks of the body") from None
        if remaining == 0:
            while stream.readline(65536).strip():
                pass  # trailers
            return
        while remaining:
            piece = stream.read(min(remaining, PIECE))
            if not piece:
                raise BrokenBodyError("the connection closed inside a chunk of the body")
            remaining -= len(piece)
            yield piece
        stream.readline(16)


@dataclass(frozen=True)
class ExternalTable:
    """A table sent along with a query (multipart form)."""

    name: str
    structure: str
    format: str
    data: bytes


@dataclass
class Request:
    """A request to `/`: what the client asked for, not yet looked into."""

    method: str
    path: str
    parameters: dict[str, str]
    body: Body
    user: str
    password: str
    query_id: str
    default_format: str
    external: list[ExternalTable] = field(default_factory=list[ExternalTable])

    @property
    def settings(self) -> dict[str, str]:
        """The ClickHouse settings among the parameters."""
        return {
            name: value
            for name, value in self.parameters.items()
            if name not in INTERFACE_PARAMETERS and not name.startswith("param_")
        }

    @property
    def query_parameters(self) -> dict[str, str]:
        """The values of `{name:Type}` in the statement."""
        return {
            name.removeprefix("param_"): value for name, value in self.parameters.items() if name.startswith("param_")
        }

    def flag(self, name: str) -> bool:
        """Whether a switch among the parameters is on."""
        return self.parameters.get(name, "0").lower() in {"1", "true"}


def parse(method: str, target: str, headers: Message, stream: BufferedIOBase) -> Request:
    """The request behind a request line, its headers and the stream its body comes from."""
    url = urlsplit(target)
    parameters = dict(parse_qsl(url.query, keep_blank_values=True))
    pieces = raw_pieces(stream, headers)
    encoding = (headers.get("Content-Encoding") or "").lower()
    if encoding not in ("", "identity"):
        pieces = decompressed(pieces, encoding)
    body = Body(pieces)
    external: list[ExternalTable] = []
    content_type = headers.get("Content-Type") or ""
    if content_type.lower().startswith("multipart/form-data"):
        fields, files = _form(content_type, body.read())
        external = _external_tables(files, {**fields, **parameters})
        described = {f"{table.name}_{part}" for table in external for part in ("format", "structure", "types")}
        parameters = {name: value for name, value in {**fields, **parameters}.items() if name not in described}
    user, password = _credentials(headers, parameters)
    return Request(
        method=method,
        path=url.path,
        parameters=parameters,
        body=body,
        user=user,
        password=password,
        query_id=parameters.get("query_id") or headers.get("X-ClickHouse-Query-Id") or "",
        default_format=parameters.get("default_format") or headers.get("X-ClickHouse-Format") or "TabSeparated",
        external=external,
    )


def _credentials(headers: Message, parameters: Mapping[str, str]) -> tuple[str, str]:
    scheme, _, token = (headers.get("Authorization") or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return user, password
    if scheme:
        return "", token
    user = headers.get("X-ClickHouse-User") or parameters.get("user") or "default"
    return user, headers.get("X-ClickHouse-Key") or parameters.get("password") or ""


def _form(content_type: str, data: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    """Fields and files of a multipart form."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = str(header.get_param("boundary") or "").encode()
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for part in data.split(b"--" + boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        disposition = Message()
        for line in head.decode().splitlines():
            name, _, value = line.partition(":")
            disposition[name] = value.strip()
        name: Any = disposition.get_param("name", header="Content-Disposition")
        content = content.removesuffix(b"\r\n")
        if disposition.get_filename() is None:
            fields[str(name)] = content.decode(errors="surrogateescape")
        else:
            files[str(name)] = content
    return fields, files


def _external_tables(files: Mapping[str, bytes], parameters: Mapping[str, str]) -> list[ExternalTable]:
    def structure(name: str) -> str:
        if f"{name}_structure" in parameters:
            return parameters[f"{name}_structure"]
        types = parameters.get(f"{name}_types", "").split(",")
        return ", ".join(f"_{number} {kind}" for number, kind in enumerate(types, 1))

    return [
        ExternalTable(name, structure(name), parameters.get(f"{name}_format", "TabSeparated"), data)
        for name, data in files.items()
    ]
