"""Which domains may be received for: paused by a person, parked by a configuration error. Kept in platform.domains."""

import time
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


class DomainState(StrEnum):
    """Whether the loader receives for a domain."""

    RUNNING = "running"
    PAUSED = "paused"
    PARKED = "parked"


@dataclass(frozen=True)
class DomainRecord:
    """The newest word on a domain."""

    state: DomainState
    reason: str
    worker: str
    changed_at: datetime


def read_domains(client: "Client") -> dict[str, DomainRecord]:
    """The newest record by domain; a domain nobody ever touched is not in it, and runs."""
    rows = client.query(
        "SELECT domain, state, reason, worker, changed_at FROM platform.domains "
        "ORDER BY revision DESC LIMIT 1 BY domain"
    ).result_rows
    return {
        str(domain): DomainRecord(DomainState(str(state)), str(reason), str(worker), changed_at)
        for domain, state, reason, worker, changed_at in rows
    }


def write_domain(
    client: "Client", domain: str, state: DomainState, *, reason: str, worker: str, unless_paused: bool = False
) -> None:
    """Pause, park or resume a domain, for every agent. `unless_paused`: what a person has paused stays so."""
    condition = ""
    if unless_paused:
        newest = "SELECT argMax(state, revision) FROM platform.domains WHERE domain = {domain:String}"
        condition = f" WHERE ({newest}) != 'paused'"
    client.command(
        "INSERT INTO platform.domains (domain, state, revision, reason, worker) "
        "SELECT {domain:String}, {state:String}, {revision:UInt64}, {reason:String}, {worker:String}" + condition,
        parameters={
            "domain": domain,
            "state": state.value,
            "revision": time.time_ns(),
            "reason": reason,
            "worker": worker,
        },
    )
