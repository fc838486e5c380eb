"""The compressions of text UNLOAD knows, behind one shape, and the extensions they add."""

import bz2
import zlib
from io import BytesIO
from typing import Protocol

import pyarrow as pa

from data_platform.local.warehouse.unload.contract import MEGABYTE, Compression

COMPRESSOR_HOLDS = MEGABYTE  # what a compressor may still have inside: bzip2 collects 900 kB
GZIP_WINDOW = 16 + zlib.MAX_WBITS  # 16 asks zlib for a gzip header
EXTENSIONS: dict[Compression | None, str] = {"gzip": ".gz", "bzip2": ".bz2", "zstd": ".zst", None: ""}


class Compressor(Protocol):
    """zlib's and bz2's common shape."""

    def compress(self, data: bytes, /) -> bytes:
        """Compressed bytes that are ready."""
        ...

    def flush(self) -> bytes:
        """The rest."""
        ...


class Plain:
    """No compression."""

    def compress(self, data: bytes, /) -> bytes:
        """The data."""
        return data

    def flush(self) -> bytes:
        """Nothing is held back."""
        return b""


class _Zstd:
    """Arrow's zstd behind zlib's shape; the standard library has none before Python 3.14."""

    def __init__(self) -> None:
        self._ready = BytesIO()
        self._stream = pa.CompressedOutputStream(pa.PythonFile(self._ready, "w"), "zstd")

    def compress(self, data: bytes, /) -> bytes:
        self._stream.write(data)
        return self._drain()

    def flush(self) -> bytes:
        ready = self._ready
        self._ready.close = lambda: None  # closing the stream closes what it writes to
        self._stream.close()
        return ready.getvalue()

    def _drain(self) -> bytes:
        data = self._ready.getvalue()
        self._ready.seek(0)
        self._ready.truncate()
        return data


def compressor(compression: Compression | None) -> Compressor:
    """A fresh compressor. Level 1: the stand-in's time matters more than its size."""
    if compression == "gzip":
        return zlib.compressobj(1, zlib.DEFLATED, GZIP_WINDOW)
    if compression == "bzip2":
        return bz2.BZ2Compressor(1)
    return _Zstd() if compression == "zstd" else Plain()
