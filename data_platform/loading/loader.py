"""Objects of one table partition, each brought in exactly once: identify, decide, then insert or replace.

The caller owns the messages: it deletes one when its object's outcome is final. Rows are the last word: an object
counts as loaded only after the partition was seen to hold as many rows of it as its footer says.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from data_platform.catalog.models import Dataset
from data_platform.loading.admission import Memory
from data_platform.loading.decide import Action, Outcome, order
from data_platform.loading.errors import Code, LoadError
from data_platform.loading.group import Group
from data_platform.loading.inserting import insert
from data_platform.loading.lock import Lease
from data_platform.loading.message import ObjectEvent
from data_platform.loading.register import ObjectVersion, TablePartition
from data_platform.loading.replacing import committed, replace_object
from data_platform.loading.results import Failure, LoadResult, Told
from data_platform.loading.source import Footers
from data_platform.loading.swap import settle
from data_platform.loading.warehouse import Warehouse

__all__ = ["Failure", "LoadResult", "Outcome", "Told", "load_object", "load_objects"]


def load_object(warehouse: Warehouse, dataset: Dataset, event: ObjectEvent) -> LoadResult:
    """Bring the table to hold this object version's rows exactly once, or say why it need not.

    Raises LoadError with a code for what is wrong with the object, LockHeldError or TransientError for what may pass,
    the clients' errors as they are.
    """
    told = load_objects(warehouse, dataset, [event])[0]
    if isinstance(told, Failure):
        raise LoadError(told.diagnosis.code, told.diagnosis.reason)
    return told


def load_objects(
    warehouse: Warehouse,
    dataset: Dataset,
    events: Sequence[ObjectEvent],
    *,
    memory: int | None = None,
    admit: Callable[[int], AbstractContextManager[int]] | None = None,
    smaller: bool = False,
    stage: Callable[[str], None] = lambda _name: None,
    wait_s: float = 120.0,
) -> list[Told]:
    """`load_object` for events of one partition, under one lease: what became of each.

    `memory`: bytes a block may take; `admit` waits for them to be free. `smaller`: memory ran out before. `stage` is
    told what is being done. What concerns all (the lease, the register, the server) is raised.
    """
    started = time.monotonic()
    key = events[0].key
    partition = TablePartition(key.domain, key.table, key.ds)
    budget = memory or warehouse.settings.loader_rebuild_memory_mb * 2**20
    with Footers(warehouse.objects) as footers:
        group = Group(warehouse, dataset, partition, budget, admit or Memory(budget).admitted, smaller, stage, footers)
        stage("look up")
        identified = [group.identify(event) for event in events]
        open_events = [each for each in identified if isinstance(each, ObjectEvent)]
        if open_events:
            # While the lease is taken and the register asked. For an event that was answered before, a GET in vain.
            footers.begin([event.version for event in open_events])
            with warehouse.hold(dataset, partition, wait_s=wait_s) as lease:
                _run(group, lease, open_events)
    return _in_order(group, identified, time.monotonic() - started)


def _run(group: Group, lease: Lease, events: Sequence[ObjectEvent]) -> None:
    """All events, in passes: one version of a key at a time, the oldest first."""
    if not lease.first:
        group.look_up(events)
    if group.state.replacing:
        settle(group.warehouse, group.dataset, group.partition, group.state)
        group.look_up(events)
    waiting: dict[str, list[ObjectEvent]] = {}
    for event in {event.version.identity: event for event in events}.values():
        waiting.setdefault(event.version.key, []).append(event)
    for versions in waiting.values():
        versions.sort(key=lambda event: order(event.version.sequencer), reverse=True)
    while waiting:
        turn = [versions.pop() for versions in waiting.values()]
        waiting = {key: versions for key, versions in waiting.items() if versions}
        _one_pass(group, lease, turn)
        if waiting:
            group.look_up(events)
    group.write([])


def _one_pass(group: Group, lease: Lease, events: Sequence[ObjectEvent]) -> None:
    """Events of different keys: decide each, then load what has to be loaded."""
    inserts: list[ObjectVersion] = []
    for event in committed(group, lease, events):
        version = event.version
        decision = group.decide(version)
        if decision.action is Action.NOTHING:
            group.note_sequencer(version)
            mine = group.known.get(version.identity)
            rows = mine.rows if mine is not None and decision.outcome is Outcome.ALREADY else 0
            group.done(decision.outcome or Outcome.STALE, version, rows)
        elif decision.action is Action.REJECT:
            reason = f"{version.key} was overwritten, which the dataset's policy rejects"
            group.fail(version, LoadError(Code.PERMISSION, reason))
        elif decision.action is Action.REPLACE:
            for checked in group.checked([version]):
                replace_object(group, lease, checked, decision.older)
        else:
            inserts.append(version)
    checked = group.checked(inserts)
    if checked:
        insert(group, lease, checked)


def _in_order(group: Group, identified: Sequence[ObjectEvent | Told], seconds: float) -> list[Told]:
    """One answer an event; of a version that several announced, the first was loaded and the others are known."""
    answers: list[Told] = []
    seen: set[str] = set()
    for each in identified:
        told = group.told[each.version.identity] if isinstance(each, ObjectEvent) else each
        if isinstance(told, LoadResult):
            twice = told.version.identity in seen and told.outcome in {Outcome.LOADED, Outcome.REPLACED}
            told = replace(told, seconds=seconds, outcome=Outcome.ALREADY if twice else told.outcome)
        seen.add(told.version.identity)
        answers.append(told)
    return answers
