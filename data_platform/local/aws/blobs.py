"""Bytes of objects and parts as files of the state folder; what an object is beyond its bytes stands in objects.py.

A blob is written under a name of its own and becomes an object by the database row that names it: a half-written file
never has a row, and files without a row are removed at the next start. No fsync: what was written survives kill -9 of
the process, not a power cut of the machine.
"""

import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path

CHUNK = 256 * 1024
# A reader may have looked the blob up just before its object was overwritten; a minute is longer than that takes.
GRACE_S = 60.0


class BlobView:
    """A blob opened for one answer: it has a length, gives slices, and yields chunks instead of all at once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        self._file.seek(start)
        return self._file.read(max(stop - start, 0))

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            yield chunk

    def close(self) -> None:
        """Called by the WSGI server when the answer is sent or given up."""
        self._file.close()

    def __del__(self) -> None:
        self._file.close()


class BlobStore:
    """A folder of blobs, spread over 256 sub-folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._doomed: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()
        for number in range(256):
            (folder / f"{number:02x}").mkdir(parents=True, exist_ok=True)

    def write(self, data: bytes) -> str:
        """Write a new blob; returns its name."""
        name = uuid.uuid4().hex
        self._path(name).write_bytes(data)
        return name

    def read(self, name: str) -> bytes:
        """All bytes of a blob."""
        return self._path(name).read_bytes()

    def view(self, name: str) -> BlobView:
        """A blob opened for reading in parts."""
        return BlobView(self._path(name))

    def path(self, name: str) -> Path:
        """The file of a blob, for a reader that needs a file."""
        return self._path(name)

    def doom(self, name: str) -> None:
        """Remove a blob after the grace period; also removes those whose period is over."""
        now = time.monotonic()
        with self._lock:
            self._doomed.append((now + GRACE_S, name))
            while self._doomed and self._doomed[0][0] <= now:
                self._path(self._doomed.popleft()[1]).unlink(missing_ok=True)

    def keep_only(self, names: set[str]) -> int:
        """Remove every other blob (what a killed process left); returns how many."""
        orphans = [path for path in self._folder.glob("??/*") if path.name not in names]
        for path in orphans:
            path.unlink(missing_ok=True)
        return len(orphans)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name
