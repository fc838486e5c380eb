"""Memory does not grow with the object: whatever its form, and however many bytes stand in one line or message."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

# In a process of its own, so that the peak is that of this object and of nothing before it.
PROGRAM = """
import io, json, resource, sys, zlib
from collections.abc import Iterator
import orjson, pyarrow
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from data_platform.curation.otlp import read_events

FORM, BYTES = sys.argv[1], int(sys.argv[2])
RECORD = {"timeUnixNano": "1357000000000000000", "eventName": "product_view", "attributes":
          [{"key": f"key.{n}", "value": {"stringValue": f"value {n}"}} for n in range(8)]}
RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}


def wire(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + length(len(body)) + body


def length(size: int) -> bytes:
    out = bytearray()
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size])


def protobuf_record() -> bytes:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(
        time_unix_nano=1357000000000000000, event_name="product_view")
    for n in range(8):
        attribute = record.attributes.add()
        attribute.key, attribute.value.string_value = f"key.{n}", f"value {n}"
    return record.SerializeToString()


def chunks() -> Iterator[bytes]:
    if FORM == "lines":
        line = orjson.dumps({"resourceLogs": [{"resource": RESOURCE, "scopeLogs": [{"logRecords": [RECORD] * 200}]}]})
        for _ in range(BYTES // len(line)):
            yield line + b"\\n"
    elif FORM == "one document":
        yield b'{"resourceLogs":[{"resource":' + orjson.dumps(RESOURCE) + b',"scopeLogs":[{"logRecords":['
        records = b",".join([orjson.dumps(RECORD)] * 200)
        for _ in range(BYTES // len(records)):
            yield records + b","
        yield orjson.dumps(RECORD) + b"]}]}]}"
    elif FORM == "one message":
        records = wire(2, protobuf_record()) * 200
        count = BYTES // len(records)
        resource = wire(1, wire(1, wire(1, b"service.name") + wire(2, wire(1, b"shop"))))
        scope = b"\\x12" + length(len(records) * count)
        yield b"\\x0a" + length(len(resource) + len(scope) + len(records) * count) + resource + scope
        for _ in range(count):
            yield records
    else:
        yield from (b"x" * 1_000_000 for _ in range(BYTES // 1_000_000))


def zipped() -> Iterator[bytes]:
    packer = zlib.compressobj(1, wbits=31)
    for chunk in chunks():
        yield packer.compress(chunk)
    yield packer.flush()


class Stream(io.RawIOBase):
    def __init__(self) -> None:
        self.pieces, self.rest = zipped() if sys.argv[3] == "gzip" else chunks(), b""

    def read(self, size: int = -1) -> bytes:
        while len(self.rest) < size and (piece := next(self.pieces, None)) is not None:
            self.rest += piece
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken


rows = rejects = 0
for part in read_events(Stream(), "x", batch_rows=8192):
    rows, rejects = rows + part.batch.num_rows, rejects + len(part.rejects)
# Not ru_maxrss: across fork and exec it keeps the peak of the test process.
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
print(json.dumps({"rows": rows, "rejects": rejects, "peak": peak}))
"""
MIB = 1 << 20
LIMIT = 512 * MIB


def run(form: str, size: int, packing: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, form, str(size), packing], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("form", "packing"),
    [
        ("lines", "plain"),
        ("lines", "gzip"),
        ("one document", "plain"),
        ("one message", "plain"),
        ("one message", "gzip"),
    ],
)
def test_four_times_the_bytes_take_no_more_memory(form: str, packing: str) -> None:
    small, large = run(form, 8 * MIB, packing), run(form, 32 * MIB, packing)
    assert large["rows"] > 3.5 * small["rows"] > 0
    assert small["rejects"] == large["rejects"] == 0
    assert large["peak"] < LIMIT
    # Allocators keep some of what they had; the bytes themselves would add 24 MiB, parsed JSON ten times that.
    assert large["peak"] - small["peak"] < 16 * MIB


def test_a_gzip_of_one_endless_line_is_a_reject_and_not_an_end_of_memory() -> None:
    found = run("bomb", 128 * MIB, "gzip")
    assert found["rows"] == 0
    assert 1 <= found["rejects"] <= 3
    assert found["peak"] < LIMIT
