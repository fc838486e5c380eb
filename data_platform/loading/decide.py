"""What one event asks for, given what the register knows of its key. Pure: the loader's one table of decisions."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from data_platform.catalog.models import Overwrite
from data_platform.loading.register import ObjectRecord, ObjectVersion, State


class Outcome(StrEnum):
    """How a load ended. Every one but DEFERRED is final: the message has done its work."""

    LOADED = "loaded"
    ALREADY = "already loaded"
    REPLACED = "loaded in place of an older version"
    STALE = "an older version than the one loaded"
    SUPERSEDED = "not part of the partition any more"
    GONE = "the object is gone"
    DEFERRED = "its partition is not committed yet"


class Action(StrEnum):
    """What is to be done for an event."""

    NOTHING = "nothing"
    INSERT = "insert"
    REPLACE = "replace"
    REJECT = "reject"


@dataclass(frozen=True)
class Decision:
    """`outcome` where nothing is to be done; `older` are the identities whose rows have to go."""

    action: Action
    outcome: Outcome | None = None
    older: frozenset[str] = frozenset()


def decide(version: ObjectVersion, of_key: Mapping[str, ObjectRecord], overwrite: Overwrite) -> Decision:
    """`of_key`: the newest records of every version of the event's key in its partition, by identity.

    An older event changes nothing, whatever became of the newer one: S3 holds the newer one by now.
    """
    mine = of_key.get(version.identity)
    if mine is not None and mine.state is State.LOADED:
        return Decision(Action.NOTHING, Outcome.ALREADY)
    newest = max((order(record.version.sequencer) for record in of_key.values()), default="")
    if version.sequencer and newest and order(version.sequencer) < newest:
        return Decision(Action.NOTHING, Outcome.STALE)
    older = frozenset(identity for identity, record in of_key.items() if record.state is State.LOADED)
    if not older or overwrite is Overwrite.APPEND:
        return Decision(Action.INSERT)
    if overwrite is Overwrite.REJECT:
        return Decision(Action.REJECT)
    return Decision(Action.REPLACE, older=older)


def order(sequencer: str) -> str:
    """Sequencers are hexadecimal of varying length: compared after padding to the right, as S3 documents."""
    return sequencer.ljust(64, "0") if sequencer else ""
