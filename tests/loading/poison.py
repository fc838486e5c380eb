"""Objects that must not be loaded: one of every kind a producer can send, and the code each dies with."""

import random
from dataclasses import dataclass

import pyarrow as pa

from tests.loading.conftest import parquet, rows

ROWS = 80  # more than 1,024 bytes of Parquet: smaller objects raise no event


@dataclass(frozen=True)
class Poison:
    """`body` None: the object is gone when its event is looked at."""

    kind: str
    code: str
    body: bytes | None


def poisons(start: int, dice: random.Random) -> list[Poison]:
    """One of each kind, made from good rows with ids from `start`."""
    good = rows(start, ROWS)
    file = parquet(good)
    broken = bytearray(file)
    broken[-60:-8] = dice.randbytes(52)
    text = good.column("id").cast(pa.string())
    nulls = pa.array([None, *range(start + 1, start + ROWS)], pa.int64())
    return [
        Poison("corrupt footer", "E003", bytes(broken)),
        Poison("truncated", "E003", parquet(rows(start, ROWS * 3))[: len(file)]),
        Poison("wrong type", "E003", parquet(good.set_column(0, "id", text))),
        Poison("missing column", "E003", parquet(rows(start, ROWS * 3).select(["id"]))),
        Poison("null in non-null", "E003", parquet(good.set_column(0, "id", nulls))),
        Poison("empty", "E003", b""),
        Poison("not Parquet", "E002", b"id,name\n" + b"1,one\n" * 300),
        Poison("vanished key", "E008", None),
    ]
