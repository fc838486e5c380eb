"""The unload API under 100 clients that submit at once, 20 of them with the same ids: p99 of POST, executions per id.

Run: python -m benchmarks.unload_api. Limit: p99 under 150 ms on 2 cores, no 5xx, one execution per id. The clients are
threads of a process of their own; each thinks for a moment between its calls, as people and services do.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from benchmarks._unload_service import unload_service

CLIENTS = 100
SAME = 20
CALLS = 10
THINK_S = 1.0
LIMIT_MS = 150.0


def hammer(
    port: int, token: str, *, clients: int = CLIENTS, calls: int = CALLS, think_s: float = THINK_S
) -> dict[str, Any]:
    """Submit from `clients` threads; latencies in ms, statuses, ids."""
    run = uuid4().hex[:8]
    start = threading.Barrier(clients)
    lock = threading.Lock()
    times: list[float] = []
    statuses: Counter[int] = Counter()
    ids: set[str] = set()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.connect()
        start.wait()
        time.sleep(think_s * number / clients)
        for call in range(calls):
            who = "same" if number < SAME else str(number)
            body = json.dumps({"requestId": f"{run}-{who}-{call}", "sql": f"select {call} as n"})
            began = time.perf_counter()
            connection.request("POST", "/api/unload", body, {"Authorization": f"Bearer {token}",
                                                             "Content-Type": "application/json"})  # fmt: skip
            response = connection.getresponse()
            response.read()
            took = (time.perf_counter() - began) * 1000
            with lock:
                times.append(took)
                statuses[response.status] += 1
                ids.add(f"{run}-{who}-{call}")
            time.sleep(think_s)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    return {
        "calls": len(times),
        "p50_ms": times[len(times) // 2],
        "p99_ms": times[int(len(times) * 0.99)],
        "max_ms": times[-1],
        "statuses": dict(statuses),
        "ids": sorted(ids),
    }


def main() -> int:
    """Print the figures; 1 when a limit is broken."""
    if len(sys.argv) == 3:
        sys.stdout.write(json.dumps(hammer(int(sys.argv[1]), sys.argv[2])))
        return 0
    with unload_service() as service:
        command = [sys.executable, "-m", "benchmarks.unload_api", str(service.port), service.token]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ids = told["ids"]
        query = sa.text(
            "SELECT count(*), count(DISTINCT request_id) FROM unload_changes"
            " WHERE status = 'PENDING' AND request_id = ANY(:ids)"
        )
        with service.ledger.connect() as connection:
            accepted, distinct = connection.execute(query, {"ids": ids}).one()
    errors = sum(number for status, number in told["statuses"].items() if int(status) >= 500)
    twice = accepted - distinct
    print(f"{CLIENTS} clients, {SAME} of them with the same ids: {told['calls']} calls, {len(ids)} ids")
    print(f"POST p50 {told['p50_ms']:.1f} ms, max {told['max_ms']:.1f} ms; answers {told['statuses']}")
    print(f"POST p99: {told['p99_ms']:.1f} ms (limit {LIMIT_MS:.0f})")
    print(f"answers 5xx: {errors} (limit 0)")
    print(f"ids accepted twice or not at all: {twice + len(ids) - distinct} (limit 0)")
    return int(told["p99_ms"] > LIMIT_MS or errors > 0 or not accepted == distinct == len(ids))


if __name__ == "__main__":
    sys.exit(main())
