"""What decoding OTLP logs costs: the sample shops' records against a bare parse of the same bytes.

Both sides run by turns in this process and are measured in CPU time, so that a busy machine changes neither; the best
of each counts. Two limits hold: JSON lines at half the speed of `orjson.loads` alone, however many records stand in a
line, and memory. A bare parse of protobuf makes no Python object at all, so its ratio is no measure of this code: it is
printed, and the limit there is that a record costs no more than one from JSON.
"""

import io
import resource
import sys
import time
from collections.abc import Callable

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from data_platform.curation.otlp import read_events
from data_platform.local.sample.otel import emit, to_json_lines, to_protobuf
from data_platform.local.sample.shop import SHOPS, shop_events

RECORDS = 20_000
ROUNDS = 15
LIMIT_JSON = 0.5
LIMIT_PROTOBUF_TO_JSON = 1.5  # CPU time of a record from protobuf, in records from JSON
LIMIT_MEMORY_MIB = 512


def decode(body: bytes) -> int:
    """Rows of all batches."""
    return sum(part.batch.num_rows for part in read_events(io.BytesIO(body), "otel-logs/benchmark"))


def parse_lines(body: bytes) -> None:
    """Nothing but the parser."""
    for line in body.split(b"\n"):
        if line:
            orjson.loads(line)


def best(sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """CPU microseconds per record of each side, by turns."""
    found = dict.fromkeys(sides, float("inf"))
    for _ in range(ROUNDS):
        for name, call in sides.items():
            started = time.process_time()
            call()
            found[name] = min(found[name], (time.process_time() - started) / RECORDS * 1e6)
    return found


def main() -> int:
    """Print the ratios; 1 when a limit is broken."""
    records = emit(SHOPS[0], shop_events(SHOPS[0])[:RECORDS])
    bodies = {f"json, {size} a line": to_json_lines(records, size) for size in (100, 1, 2000)}
    message = to_protobuf(records)
    del records
    for body in (*bodies.values(), message):
        if decode(body) != RECORDS:
            print("records are missing: nothing to measure")
            return 1
    costs: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for name, body in bodies.items():
        took = best({"bare": lambda body=body: parse_lines(body), "events": lambda body=body: decode(body)})
        costs[name], ratios[name] = took["events"], took["bare"] / took["events"]
        print(f"{name:20} orjson alone {took['bare']:6.2f} us, events {took['events']:6.2f} us: {ratios[name]:.2f}")
    took = best({"bare": lambda: ExportLogsServiceRequest.FromString(message), "events": lambda: decode(message)})
    print(
        f"{'protobuf':20} upb alone    {took['bare']:6.2f} us, events {took['events']:6.2f} us: "
        f"{took['bare'] / took['events']:.2f}"
    )
    to_json = took["events"] / costs["json, 100 a line"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, ratio in ratios.items():
        print(f"{name}, of the bare parser's speed: {ratio:.2f} (limit {LIMIT_JSON}, at least)")
    print(f"protobuf, in time of json: {to_json:.2f} (limit {LIMIT_PROTOBUF_TO_JSON})")
    print(f"peak memory with all of the data in it: {peak:.0f} MiB (limit {LIMIT_MEMORY_MIB})")
    kept = min(ratios.values()) >= LIMIT_JSON and to_json <= LIMIT_PROTOBUF_TO_JSON and peak < LIMIT_MEMORY_MIB
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
