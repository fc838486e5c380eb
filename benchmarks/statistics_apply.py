"""The CSV batch against what PostgreSQL needs at the least: a bare COPY and the best set-based upsert, in one run.

Users are present, all counts new; then the same file again. Rows are counted, memory is the batch's own process's.
Run as `python -m benchmarks.statistics_apply [rows]`; exit code 1 beyond a limit. At 1 M rows the limits hold.
"""

import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from data_platform.catalog.models import UserStatistics
from data_platform.clients import aws, postgres
from data_platform.ledger import migrate
from data_platform.local.process import EngineProcess
from data_platform.settings import Settings
from data_platform.statistics.apply import apply_file
from data_platform.statistics.outcome import Limits
from data_platform.statistics.source import find

ROWS = 1_000_000
FRESH_LIMIT, AGAIN_LIMIT, MEMORY_LIMIT_MB = 1.5, 0.5, 300
BUCKET, KEY = "statistics-bench", "incoming/bench.csv"
STAGING = 'CREATE TABLE bare (user_id text COLLATE "C", login_count bigint, post_count bigint)'
UNSORTED = "ON CONFLICT"  # the slowest by far beyond what fits into memory: left out there
# The upserts a careful person would write; the fastest counts.
UPSERTS = {
    UNSORTED: """INSERT INTO user_statistics AS t (user_id, login_count, post_count)
        SELECT user_id, login_count, post_count FROM bare ON CONFLICT (user_id) DO UPDATE
        SET login_count = excluded.login_count, post_count = excluded.post_count, updated_at = clock_timestamp()
        WHERE (t.login_count, t.post_count) IS DISTINCT FROM (excluded.login_count, excluded.post_count)""",
    "ON CONFLICT, sorted": """INSERT INTO user_statistics AS t (user_id, login_count, post_count)
        SELECT user_id, login_count, post_count FROM bare ORDER BY user_id ON CONFLICT (user_id) DO UPDATE
        SET login_count = excluded.login_count, post_count = excluded.post_count, updated_at = clock_timestamp()
        WHERE (t.login_count, t.post_count) IS DISTINCT FROM (excluded.login_count, excluded.post_count)""",
    "MERGE": """MERGE INTO user_statistics AS t USING (SELECT * FROM bare ORDER BY user_id) AS s
        ON t.user_id = s.user_id
        WHEN MATCHED AND (t.login_count, t.post_count) IS DISTINCT FROM (s.login_count, s.post_count) THEN
            UPDATE SET login_count = s.login_count, post_count = s.post_count, updated_at = clock_timestamp()
        WHEN NOT MATCHED THEN INSERT (user_id, login_count, post_count)
            VALUES (s.user_id, s.login_count, s.post_count)""",
}


def csv_file(rows: int, path: Path) -> None:
    """A file of all users in no order."""
    numbers = list(range(rows))
    random.Random(1).shuffle(numbers)
    with path.open("w", newline="") as file:
        file.write("user_id,login_count,post_count\n")
        file.writelines(f"U{number:08d},{number % 500},{number % 80}\n" for number in numbers)


def timed(action: Callable[[], Any]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def bare(url: str, path: Path, upsert: str) -> None:
    """COPY and one upsert, in one transaction."""
    with psycopg.connect(url) as connection:
        connection.execute(STAGING)
        with connection.cursor().copy("COPY bare FROM STDIN (FORMAT csv, HEADER)") as copy, path.open("rb") as file:
            while block := file.read(1 << 20):
                copy.write(block)
        connection.execute("ANALYZE bare")
        connection.execute(upsert)
        connection.execute("DROP TABLE bare")


def empty(url: str) -> None:
    """No counts, and nothing that says they were ever applied."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE user_statistics, processing_metadata, batch_jobs, audit_logs")


def child(settings: dict[str, str]) -> int:
    """In a process of its own, for its memory: apply the file, then again; prints what it took."""
    own = Settings.model_validate(settings)
    s3, engine = aws.s3(own), postgres.engine(own)
    limits = Limits(timeout_s=3600)
    file = find(s3, BUCKET, KEY)
    fresh = apply_file(engine, s3, file, UserStatistics(), again=True, limits=limits)
    again = apply_file(engine, s3, file, UserStatistics(), again=True, limits=limits)
    s3.copy_object(Bucket=BUCKET, Key=KEY, CopySource={"Bucket": BUCKET, "Key": KEY}, MetadataDirective="REPLACE")
    time.sleep(1.1)  # without versioning the time of an object, in seconds, tells two drops apart
    s3.copy_object(Bucket=BUCKET, Key=KEY, CopySource={"Bucket": BUCKET, "Key": KEY}, MetadataDirective="REPLACE")
    dropped = apply_file(engine, s3, find(s3, BUCKET, KEY), UserStatistics(), limits=limits)
    # Not ru_maxrss, which begins with the peak of the process that started this one.
    memory = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    print(
        json.dumps(
            {"fresh_s": fresh.seconds, "inserted": fresh.inserted, "inconsistencies": fresh.inconsistencies,
             "again_s": again.seconds, "status": again.status, "changed": again.inserted + again.updated,
             "dropped_s": dropped.seconds, "unchanged": dropped.unchanged, "memory_mb": memory}
        )
    )  # fmt: skip
    return 0


def measure(env: dict[str, str], rows: int, folder: Path) -> int:
    """Run both, print the figures; 0 when the limits hold."""
    path = folder / "bench.csv"
    csv_file(rows, path)
    settings = {
        "aws_endpoint_url": env["AWS_ENDPOINT_URL"],
        "aws_access_key_id": env["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": env["AWS_SECRET_ACCESS_KEY"],
        "aws_region": env["AWS_DEFAULT_REGION"],
        "postgres_url": env["POSTGRES_URL"],
    }
    own = Settings.model_validate(settings)
    s3 = aws.s3(own)
    s3.create_bucket(Bucket=BUCKET)
    with path.open("rb") as body:
        s3.put_object(Bucket=BUCKET, Key=KEY, Body=body)
    engine = postgres.engine(own)
    migrate(engine)
    engine.dispose()
    url = env["POSTGRES_URL"].replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO users (user_id) SELECT 'U' || lpad(i::text, 8, '0') FROM generate_series(0, %s) i", (rows - 1,)
        )
        connection.execute("VACUUM ANALYZE users")
    seconds: dict[str, float] = {}
    for name, upsert in UPSERTS.items():
        if rows > ROWS and name == UNSORTED:
            continue
        empty(url)
        seconds[name] = timed(lambda upsert=upsert: bare(url, path, upsert))
        print(f"COPY + {name:<28}{seconds[name]:8.2f} s  {rows / seconds[name]:12,.0f} rows/s", flush=True)
    empty(url)
    best = min(seconds, key=lambda name: seconds[name])
    command = [sys.executable, "-m", "benchmarks.statistics_apply", "child", json.dumps(settings)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(io.StringIO(answer.stdout).readlines()[-1])
    # The machine may have grown slower or quicker meanwhile: the best is measured again, and the mean taken.
    empty(url)
    base = (seconds[best] + timed(lambda: bare(url, path, UPSERTS[best]))) / 2
    fresh, again = found["fresh_s"] / base, found["again_s"] / base
    print(f"the bare best, before and after   {base:8.2f} s  ({best})")
    print(f"the batch, all rows new           {found['fresh_s']:8.2f} s  ratio {fresh:.2f} (limit {FRESH_LIMIT})")
    print(f"the same file again               {found['again_s']:8.2f} s  ratio {again:.2f} (limit {AGAIN_LIMIT})")
    print(f"the same rows dropped once more   {found['dropped_s']:8.2f} s  ratio {found['dropped_s'] / base:.2f}")
    print(f"memory of its process             {found['memory_mb']:8.0f} MB (limit {MEMORY_LIMIT_MB})")
    right = (
        found["inserted"] == found["unchanged"] == rows
        and found["changed"] == found["inconsistencies"] == 0
        and found["status"] == "ALREADY_DONE"
    )
    if not right:
        print(f"wrong: {found}")
    held = fresh <= FRESH_LIMIT and again <= AGAIN_LIMIT and found["memory_mb"] <= MEMORY_LIMIT_MB
    return 0 if right and held else 1


def main() -> int:
    """Start the two engines, measure, stop them. Returns the exit code."""
    if sys.argv[1:2] == ["child"]:
        return child(json.loads(sys.argv[2]))
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's system user passes through it
        own_aws = EngineProcess.with_free_ports("aws", folder / "aws")
        own_aws.start()
        warehouse = EngineProcess.with_free_ports("warehouse", folder / "warehouse", {"env": own_aws.env})
        try:
            warehouse.start()
            return measure({**own_aws.env, **warehouse.env}, rows, folder)
        finally:
            warehouse.stop()
            own_aws.stop()


if __name__ == "__main__":
    sys.exit(main())
