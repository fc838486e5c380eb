"""The steps of a loader, each a call it makes: where it is killed, in front of the call or behind it."""

from dataclasses import dataclass, field
from typing import Any

KILLED = "kill -9 of the loader: "
TAKE, FREE = (f"*INSERT INTO platform.locks*'{kind}'*" for kind in ("take", "free"))
OBJECTS, PARTITIONS = (f"*INSERT INTO platform.{name}*" for name in ("objects", "partitions"))


@dataclass(frozen=True)
class Step:
    """Where a loader is killed: in front of a call (it hangs) or behind it (executed, never answered)."""

    engine: str
    fault: str
    match: dict[str, str]
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    skip: int = 0
    overwrites: bool = False
    fresh: bool = False  # a loader that has met no partition yet


def _clickhouse(sql: str, *, after: bool = False, skip: int = 0, overwrites: bool = False, fresh: bool = False) -> Step:
    fault, args = ("clickhouse.drop_after", {}) if after else ("clickhouse.delay", {"seconds": 1.5})
    return Step("clickhouse", fault, {"sql": sql}, args, skip, overwrites, fresh)


def _sqs(action: str, *, after: bool = False) -> Step:
    return Step("aws", "sqs.delay", {"action": action}, {"seconds": 1.5, "when": "after" if after else "before"})


# {domain} is the line's own. A delayed statement is executed once its time is up, long after its sender died.
STEPS: dict[str, Step] = {
    "taking the lease": _clickhouse(TAKE),
    # The first take of a loader that is new to a partition guesses that nobody ever had it, and is wrong here.
    "the lease taken": _clickhouse(TAKE, after=True, skip=1, fresh=True),
    "looking up": _clickhouse("*FROM platform.objects*"),
    "reading the footer": Step("aws", "s3.delay", {"method": "GET", "key": "{domain}/*"}, {"seconds": 1.5}),
    "writing the intent": _clickhouse(OBJECTS),
    "the intent written": _clickhouse(OBJECTS, after=True),
    "inserting": _clickhouse("*INSERT INTO `{domain}`*"),
    "the object being read": Step("aws", "s3.stall", {"method": "GET", "key": "{domain}/*"}, {"seconds": 1.5}, 1),
    "inserted": _clickhouse("*INSERT INTO `{domain}`*", after=True),
    "proving": _clickhouse("*SELECT *_object*FROM `{domain}`*"),
    "writing down": _clickhouse(OBJECTS, skip=1),
    "written down": _clickhouse(OBJECTS, after=True, skip=1),
    "freeing the lease": _clickhouse(FREE),
    "deleting the message": _sqs("DeleteMessageBatch"),
    "the message deleted": _sqs("DeleteMessageBatch", after=True),
    "staging an overwrite": _clickhouse("*INSERT INTO `{domain}`.*staging*", overwrites=True),
    "announcing a swap": _clickhouse(PARTITIONS, overwrites=True),
    "swapping": _clickhouse("*REPLACE PARTITION*", overwrites=True),
    "swapped": _clickhouse("*REPLACE PARTITION*", after=True, overwrites=True),
    "writing down a swap": _clickhouse(PARTITIONS, skip=1, overwrites=True),
}
