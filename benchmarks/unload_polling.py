"""200 status calls a second for a minute: does the API's memory stay flat? Also how fast it answers.

Run: python -m benchmarks.unload_polling [seconds]. The callers are threads of a process of their own, each with a pace.
"""

import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from uuid import uuid4

from benchmarks._unload_service import Service, unload_service

RATE = 200
CALLERS = 20
SECONDS = 60
WARM_S = 10
LIMIT_GROWTH = 1.03
LIMIT_RATE = 0.95


def poll(port: int, token: str, paths: list[str], seconds: float) -> dict[str, float]:
    """Call at the pace; how many calls a second were answered, p99 in ms, how many with an error."""
    times: list[float] = []
    errors: list[int] = []
    ends = time.monotonic() + seconds

    def caller(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        due = time.monotonic() + number / RATE
        call = 0
        while due < ends:
            time.sleep(max(due - time.monotonic(), 0))
            began = time.perf_counter()
            path = paths[(number + call) % len(paths)]
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            response.read()
            times.append((time.perf_counter() - began) * 1000)
            if response.status != 200:
                errors.append(response.status)
            call += 1
            due += CALLERS / RATE

    began = time.monotonic()
    threads = [threading.Thread(target=caller, args=(n,)) for n in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    times.sort()
    return {"rate": len(times) / took, "p99_ms": times[int(len(times) * 0.99)], "errors": len(errors)}


def requests_that_ended(service: Service) -> list[str]:
    """Paths of some requests that are DONE."""
    ids = [f"poll-{uuid4().hex[:8]}" for _ in range(20)]
    for request_id in ids:
        service.call("POST", "/api/unload", {"requestId": request_id, "sql": "select 1 as a"})
    deadline = time.monotonic() + 60
    while any(service.call("GET", f"/api/unload/{each}")[1]["status"] != "DONE" for each in ids):
        if time.monotonic() > deadline:
            raise RuntimeError("the requests do not end")
        time.sleep(0.2)
    return [f"/api/unload/status/{each}" for each in ids]


def main() -> int:
    """Print the figures; 1 when a limit is broken."""
    if len(sys.argv) > 2:
        port, token, paths, seconds = sys.argv[1:]
        sys.stdout.write(json.dumps(poll(int(port), token, json.loads(paths), float(seconds))))
        return 0
    seconds = float(sys.argv[1]) if len(sys.argv) == 2 else SECONDS
    with unload_service() as service:
        paths = requests_that_ended(service)
        command = [sys.executable, "-m", "benchmarks.unload_polling", str(service.port), service.token]
        resident: list[float] = []
        caller = subprocess.Popen(
            [*command, json.dumps(paths), str(seconds + WARM_S)], stdout=subprocess.PIPE, text=True
        )
        time.sleep(WARM_S)
        while caller.poll() is None:
            resident.append(service.resident_mib)
            time.sleep(0.5)
        told = json.loads(caller.communicate()[0])
    fifth = max(len(resident) // 5, 1)
    first, last = statistics.median(resident[:fifth]), statistics.median(resident[-fifth:])
    print(f"memory of the API: {first:.1f} MiB at first, {last:.1f} MiB at last, after {seconds:.0f} s; p99 of a call "
          f"{told['p99_ms']:.1f} ms, {told['errors']:.0f} errors")  # fmt: skip
    print(f"memory at last over at first: {last / first:.3f} (limit {LIMIT_GROWTH})")
    print(f"calls answered of {RATE} a second: {told['rate'] / RATE:.3f} (limit {LIMIT_RATE} at least)")
    return int(last / first > LIMIT_GROWTH or told["rate"] < RATE * LIMIT_RATE or told["errors"] > 0)


if __name__ == "__main__":
    sys.exit(main())
