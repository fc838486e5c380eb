"""What the platform adds to the warehouse's own UNLOAD of 1 GB, and the memory it needs for 1 GB against 10 MB.

Run: python -m benchmarks.unload_overhead [megabytes]. The platform's time is what a caller waits, from the POST to DONE
(proof included); the warehouse's is that of the same statement in its own history.
"""

import sys
import threading
import time
from uuid import uuid4

from benchmarks._unload_service import Service, unload_service
from data_platform.clients import redshift

LIMIT_OVERHEAD = 0.10
LIMIT_MEMORY = 1.05
MEGABYTES = 1000
SMALL = 10
REPEATS = 3


def make_tables(service: Service) -> None:
    """1,000 rows of 1,000 bytes, and numbers to multiply them by."""
    with redshift.connect(service.cloud.settings) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS market")
        cursor.execute(
            "CREATE TABLE market.wide AS SELECT i AS id, repeat(md5(i::text), 31)::varchar(1000) AS text"
            " FROM generate_series(1, 1000) i"
        )
        cursor.execute("CREATE TABLE market.times AS SELECT i AS n FROM generate_series(1, 100000) i")


def unload(service: Service, megabytes: int) -> tuple[float, float, float, int]:
    """Seconds the caller waited, seconds of the statement, most memory of the API in MiB, bytes of the result."""
    request_id = f"size-{uuid4().hex[:10]}"
    sql = f"select n, id, text from market.times cross join market.wide where n <= {megabytes}"
    body = {"requestId": request_id, "sql": sql, "compression": "none", "header": False}
    ended = threading.Event()
    most = [service.resident_mib]

    def watch() -> None:
        while not ended.wait(0.05):
            most[0] = max(most[0], service.resident_mib)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    status, answer = service.call("POST", "/api/unload", body)
    if status != 202:
        raise RuntimeError(f"{status}: {answer}")
    while (state := service.call("GET", f"/api/unload/{request_id}")[1])["status"] in {"PENDING", "RUNNING"}:
        time.sleep(0.02)
    waited = time.perf_counter() - began
    ended.set()
    watcher.join()
    if state["status"] != "DONE" or state["rows"] != megabytes * 1000:
        raise RuntimeError(str(state))
    return waited, own_seconds(service, request_id), most[0], state["bytes"]


def own_seconds(service: Service, request_id: str) -> float:
    """How long the warehouse says that it worked on the UNLOAD."""
    with redshift.connect(service.cloud.settings) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM end_time - start_time) FROM sys_query_history"
            " WHERE query_type = 'UNLOAD' AND position(%s IN query_text) > 0",
            (request_id,),
        )
        (seconds,) = cursor.fetchone() or (0,)
        return float(seconds)


def main() -> int:
    """Print the figures; 1 when a limit is broken."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else MEGABYTES
    with unload_service() as service:
        make_tables(service)
        unload(service, SMALL)  # everything is imported and connected after it
        small = [unload(service, SMALL) for _ in range(REPEATS)]
        waited, own, most, size = unload(service, megabytes)
    memory = most / max(each[2] for each in small)
    overhead = waited / own - 1
    extra = sorted(each[0] - each[1] for each in small)[REPEATS // 2]
    print(f"{size / 1e9:.2f} GB: the caller waited {waited:.2f} s, the warehouse worked {own:.2f} s; "
          f"of {SMALL} MB {extra * 1000:.0f} ms are the platform's")  # fmt: skip
    print(f"memory of the API at most: {most:.0f} MiB for {size / 1e9:.2f} GB, "
          f"{max(each[2] for each in small):.0f} MiB for {SMALL} MB")  # fmt: skip
    print(f"overhead over the warehouse's own time: {overhead:.3f} (limit {LIMIT_OVERHEAD})")
    print(f"memory for {megabytes} MB over that for {SMALL} MB: {memory:.3f} (limit {LIMIT_MEMORY})")
    return int(overhead > LIMIT_OVERHEAD or memory > LIMIT_MEMORY)


if __name__ == "__main__":
    sys.exit(main())
