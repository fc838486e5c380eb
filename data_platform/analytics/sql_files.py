"""The .sql files of this package: read once, without their leading comment, tables and small numbers filled in."""

from functools import cache
from importlib.resources import files

SCHEMA = "schema"
# The day of an event, from the boundaries of days.py, which travel with the statement.
LOCAL_DAY = (
    "transform(roundDown(intDiv(toUnixTimestamp64Nano(event_time), 1000000000), "
    "(SELECT groupArray(start) FROM stretches)), (SELECT groupArray(start) FROM stretches), "
    "(SELECT groupArray(day) FROM stretches), toDate(0))"
)
# Which record it is. ULIDs and UUIDs of version 7 begin with their time, until 2039 with "01": four characters of it,
# some 17 minutes or 5 hours, begin the key, so that records of one time lie together; what they displace is the rest.
# The few random ids that begin so, too, only lie elsewhere than the others.
_UID = "assumeNotNull(record_uid)"
_HASH = f"cityHash64(service_name, {_UID})"
_TIMED = f"startsWith({_UID}, '01')"
_TIME = f"toUInt64(byteSwap(reinterpretAsUInt32(substring({_UID}, 3, 4))))"
RECORD_KEY = f"if({_TIMED}, bitShiftLeft({_TIME}, 32) + bitShiftRight({_HASH}, 32), {_HASH})"
RECORD_REST = f"if({_TIMED}, toUInt32(bitAnd({_HASH}, 0xFFFFFFFF)), 0)"
EXPRESSIONS = {"local_day": LOCAL_DAY, "record_key": RECORD_KEY, "record_rest": RECORD_REST}


def statement(path: str, **names: str) -> str:
    """The statement in `sql/<path>.sql`; `{name}` becomes the given text, `{name:Type}` stays a query parameter."""
    text = source(path)
    for name, value in {**EXPRESSIONS, **names}.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def schema_ddl(layout: str, cluster: str | None = None) -> list[str]:
    """The statements that make the building blocks' tables, in order, repeatable; `layout` is noted down."""
    replicated = "Replicated" if cluster is not None else ""
    text = statement(
        SCHEMA,
        layout=layout,
        cluster=f" ON CLUSTER '{cluster}'" if cluster is not None else "",
        merge_tree=f"{replicated}MergeTree",
        replacing=f"{replicated}ReplacingMergeTree",
    )
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip(" \n;")]


@cache
def source(path: str) -> str:
    lines = files("data_platform.analytics").joinpath(f"sql/{path}.sql").read_text(encoding="utf-8").splitlines()
    if path != SCHEMA:
        while lines and lines[0].startswith("--"):
            lines.pop(0)
    return "\n".join(lines)
