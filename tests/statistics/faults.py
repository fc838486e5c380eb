"""Starts the child of child.py for a bench, and says what its end must have left behind."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

ROWS = 60
OPTIONS: dict[str, Any] = {"chunk_rows": 10, "max_rejected_percent": 100}
CHUNKS = ROWS // OPTIONS["chunk_rows"]
# Every step at which a process can end, with how often it comes in one run of the file below.
BEFORE = [("reading", 1), ("staged", 1), ("planned", 1)]
IN_CHUNKS = [(step, nth) for step in ("upserted", "written", "committed") for nth in range(1, CHUNKS + 1)]
STEPS = [*BEFORE, *IN_CHUNKS, ("comparing", 1), ("finished", 1)]


def body(offset: int) -> str:
    """60 good rows, one of an unknown user, one malformed."""
    rows = "".join(f"U{n:05d},{n + offset},{n}\n" for n in range(1, ROWS + 1))
    return f"user_id,login_count,post_count\n{rows}U99999,1,1\nU00099,x,1\n"


def expected(offset: int) -> dict[str, tuple[int, int]]:
    """What the table has to hold."""
    return {f"U{n:05d}": (n + offset, n) for n in range(1, ROWS + 1)}


def start(
    bench: Any,
    file: Any,
    mark: Path,
    *,
    at: str = "",
    nth: int = 1,
    signal: str = "kill",
    lease_s: float = 30.0,
    options: Mapping[str, Any] = OPTIONS,
) -> "subprocess.Popen[str]":
    """The child, running."""
    settings = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in bench.settings
        if value is not None
    }
    arguments = {
        "settings": settings,
        "bucket": file.bucket,
        "key": file.key,
        "options": dict(options),
        "limits": {"lease_s": lease_s, "wait_s": lease_s + 20},
        "at": at,
        "nth": nth,
        "signal": signal,
        "mark": str(mark),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.statistics.child", json.dumps(arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )


def assert_once(bench: Any, file: Any, offset: int) -> None:
    """Table, chunks, audit and metadata of a finished file: every row once, every reject once, nothing left over."""
    table = {user: counts for user, counts in bench.table().items() if user in expected(offset)}
    assert table == expected(offset)
    bench.assert_ledger_agrees()
    runs = bench.rows(
        """SELECT status, records, inserted + updated + unchanged, rejected, inconsistencies FROM processing_metadata
           WHERE file_id = :id""",
        id=file.file_id,
    )
    assert runs == [("DONE", ROWS + 2, ROWS, 2, 0)]
    ends = bench.rows(
        """SELECT count(*) FROM audit_logs a JOIN processing_metadata m ON m.run_id = a.run_id
           WHERE m.file_id = :id AND a.event = 'PROCESSED_WITH_REJECTS'""",
        id=file.file_id,
    )
    assert ends == [(1,)]
    assert bench.staging() == []
