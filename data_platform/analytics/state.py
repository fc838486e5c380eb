"""What the events are now, what the blocks were built from, which days changed in which revision: read and noted down.

What is about to change is written ahead into `changes`; what the blocks are built from goes behind into `built`.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

from data_platform.analytics.plan import Built, ServicePlan, config_of, plan_service
from data_platform.analytics.store import DATABASE, BlockStore, Pair, together
from data_platform.catalog.models import Service

NEVER = date(1970, 1, 1)  # the row of `built` that marks a finished refresh


@dataclass(frozen=True)
class Events:
    """The partitions of analytics.events by UTC day: how many rows, and a signature of the rows and their objects."""

    rows: Mapping[date, int]
    signatures: Mapping[date, int]


@dataclass(frozen=True)
class Known:
    """What was noted down of the services: what each was built from, days left unfinished, the newest revision.

    `ever`: the days of each that ever had something in the blocks.
    """

    built: Mapping[str, Built]
    ever: frozenset[Pair]
    pending: Mapping[str, Sequence[date]]
    newest: int

    def next_revision(self) -> int:
        """Later than everything known, also when a clock went back."""
        return max(time.time_ns(), self.newest + 1)


EVENTS = (
    "SELECT parts.ds, rows, cityHash64(rows, objects.digest) FROM ("
    " SELECT toDate(partition) AS ds, sum(rows) AS rows FROM system.parts"
    " WHERE database = 'analytics' AND table = 'events' AND active GROUP BY partition) AS parts "
    "LEFT JOIN (SELECT ds, cityHash64(arraySort(groupArray(object))) AS digest FROM ("
    "  SELECT ds, object, state FROM platform.objects WHERE domain = 'analytics' AND table = 'events'"
    "  ORDER BY generation DESC, revision DESC LIMIT 1 BY ds, object)"
    " WHERE state = 'loaded' GROUP BY ds) AS objects ON objects.ds = parts.ds "
    "WHERE rows > 0"
)
BUILT = (
    f"SELECT service, ds, signature, config, revision FROM {DATABASE}.built FINAL "
    "WHERE service IN {services:Array(String)}"
)
CHANGES = (
    "SELECT changes.service, groupUniqArrayIf(day, revision > built.done), groupUniqArray(day), max(revision) "
    f"FROM {DATABASE}.changes AS changes FINAL LEFT JOIN ("
    f" SELECT service, max(revision) AS done FROM {DATABASE}.built WHERE ds = '1970-01-01' GROUP BY service"
    ") AS built ON built.service = toString(changes.service) "
    "WHERE changes.service IN {services:Array(String)} GROUP BY changes.service"
)


def read(store: BlockStore) -> tuple[Events, Known]:
    """The partitions as they are, and what earlier refreshes noted down."""
    events, noted, changes = together([partial(store.rows, sql) for sql in (EVENTS, BUILT, CHANGES)])
    signatures: dict[str, dict[date, int]] = defaultdict(dict)
    configs: dict[str, int] = {}
    newest = 0
    for name, ds, signature, config, revision in noted:
        newest = max(newest, int(revision))
        if ds == NEVER:
            configs[str(name)] = int(config)
        elif signature:
            signatures[str(name)][ds] = int(signature)
    pending: dict[str, Sequence[date]] = {}
    ever: set[Pair] = set()
    for name, days, all_days, revision in changes:
        ever |= {(str(name), day) for day in all_days}
        newest = max(newest, int(revision))
        if days:
            pending[str(name)] = days
    return (
        Events({row[0]: int(row[1]) for row in events}, {row[0]: int(row[2]) for row in events}),
        Known(
            {name: Built(signatures[name], configs.get(name)) for name in store.services},
            frozenset(ever),
            pending,
            newest,
        ),
    )


def plan(store: BlockStore, services: Sequence[Service], events: Events, known: Known) -> dict[str, ServicePlan]:
    """What to build of each service."""
    changed = [service.name for service in services if known.built[service.name].config != config_of(service)]
    existing: dict[str, Sequence[date]] = {}
    if changed:  # by another definition or never: all of their days, also those the events no longer have
        existing = {
            str(name): days
            for name, days in store.rows(
                "SELECT service, groupUniqArray(day) FROM ("
                f"SELECT service, day FROM {DATABASE}.event_days WHERE service IN {{changed:Array(String)}} "
                f"UNION ALL SELECT service, day FROM {DATABASE}.session_days WHERE service IN {{changed:Array(String)}}"
                ") GROUP BY service",
                {"changed": changed},
            )
        }
    return {
        service.name: plan_service(
            service,
            events.signatures,
            known.built[service.name],
            existing.get(service.name, ()),
            known.pending.get(service.name, ()),
        )
        for service in services
    }


def note_changes(store: BlockStore, revision: int, changes: Mapping[str, Iterable[Pair]]) -> None:
    """Write ahead which days are about to change; `changes`: days by `events` or `sessions`."""
    rows = [(name, what, day, revision) for what, pairs in changes.items() for name, day in sorted(pairs)]
    store.insert("changes", ("service", "what", "day", "revision"), rows)


def write_built(
    store: BlockStore,
    services: Sequence[Service],
    plans: Mapping[str, ServicePlan],
    events: Events,
    known: Known,
    revision: int,
) -> None:
    """Note what the blocks are built from now: what differs by UTC day, and the mark of the end."""
    rows: list[tuple[object, ...]] = []
    for service in services:
        built = known.built[service.name]
        config = config_of(service)
        now, before = events.signatures, built.signatures
        changed = [ds for ds in sorted(now.keys() | before.keys()) if now.get(ds) != before.get(ds)]
        rows += [(service.name, ds, now.get(ds, 0), config, revision) for ds in changed]
        if changed or plans[service.name].clear or built.config != config:
            rows.append((service.name, NEVER, 0, config, revision))
    store.insert("built", ("service", "ds", "signature", "config", "revision"), rows)
