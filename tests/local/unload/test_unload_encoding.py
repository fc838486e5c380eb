"""Arbitrary values through the chunker, the reader and the encoders, read back by a reader of another make."""

import csv
import io
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_platform.local.warehouse.unload import parse_unload
from data_platform.local.warehouse.unload.columns import Column
from data_platform.local.warehouse.unload.compression import compressor
from data_platform.local.warehouse.unload.contract import ColumnFacts
from data_platform.local.warehouse.unload.manifest import lie
from data_platform.local.warehouse.unload.rows import ChunkReader, aligned_chunks
from data_platform.local.warehouse.unload.textual import encoder

pytestmark = pytest.mark.unit

unhurried = settings(deadline=None)  # the first example pays for imports, and cores are shared

COLUMNS = [Column(ColumnFacts(name, 1043, "varchar"), position) for position, name in enumerate("ab")]
VALUES = st.one_of(
    st.none(), st.text(st.one_of(st.sampled_from("'\"\\,|\n\r\tN{}é日"), st.characters(exclude_categories=["Cs"])))
).map(lambda text: text and text.replace("\0", ""))
ROWS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20)


def postgres_csv(rows: list[tuple[str | None, ...]]) -> bytes:
    """What COPY sends: null is nothing, everything that needs it quoted."""
    fields = [["" if value is None else '"' + value.replace('"', '""') + '"' for value in row] for row in rows]
    return "".join(",".join(row) + "\n" for row in fields).encode()


def encode(rows: list[tuple[str | None, ...]], options: str) -> str:
    statement = parse_unload(f"UNLOAD ('select 1') TO 's3://bucket/x' IAM_ROLE default {options}")
    table = pa.table(
        {f"c{number}": pa.array(values, pa.string()) for number, values in enumerate(zip(*rows, strict=True))}
    )
    return "".join(encoder(statement, COLUMNS)(table).to_pylist())


@unhurried
@given(ROWS, st.integers(1, 40), st.integers(1, 40))
def test_chunks_end_where_records_end_however_the_stream_is_cut(
    rows: list[tuple[str | None, ...]], piece: int, target: int
) -> None:
    data = postgres_csv(rows)
    pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
    chunks = list(aligned_chunks(pieces, target))
    assert b"".join(chunks) == data
    reader = ChunkReader(COLUMNS)
    tables = [reader.texts(chunk, COLUMNS) for chunk in chunks]
    assert [tuple(row.values()) for table in tables for row in table.to_pylist()] == rows


@unhurried
@given(ROWS)
def test_csv_is_what_any_csv_reader_reads(rows: list[tuple[str | None, ...]]) -> None:
    text = encode(rows, "CSV")
    expected = [[value or "" for value in row] for row in rows]
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == expected


@unhurried
@given(ROWS)
def test_json_lines_are_json(rows: list[tuple[str | None, ...]]) -> None:
    lines = encode(rows, "JSON").removesuffix("\n").split("\n")
    assert [tuple(json.loads(line).values()) for line in lines] == rows


@unhurried
@given(ROWS)
def test_escaped_and_quoted_text_is_read_by_a_backslash_reader(rows: list[tuple[str | None, ...]]) -> None:
    text = encode(rows, "ESCAPE ADDQUOTES DELIMITER ','")
    reader = csv.reader(io.StringIO(text, newline=""), doublequote=False, escapechar="\\", strict=True)
    assert list(reader) == [[value or "" for value in row] for row in rows]


@pytest.mark.parametrize("kind", [None, "gzip", "bzip2", "zstd"])
@unhurried
@given(st.lists(st.binary(max_size=200), max_size=10))
def test_compressors_give_back_what_they_got(kind: str | None, blocks: list[bytes]) -> None:
    made = compressor(kind)  # type: ignore[arg-type]
    packed = b"".join([*(made.compress(block) for block in blocks), made.flush()])
    name = {"bzip2": "bz2"}.get(kind or "", kind)
    unpacked = packed if kind is None else pa.CompressedInputStream(pa.BufferReader(packed), name).read()
    assert unpacked == b"".join(blocks)


def test_an_unknown_lie_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown lie"):
        lie({"entries": [{"url": "s3://b/k", "meta": {"content_length": 1}}]}, "white")
