"""Domains held back until a person has mended something (rights, a table): one receive a minute tries whether.

A parked domain stands in platform.domains with its reason and since when, for `loader status` and every other agent's
operator. It is parked until something of it works again, or a person resumes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_platform.loading.breaker import Breaker
from data_platform.loading.domains import DomainRecord, DomainState, write_domain

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

RETRY_S = 60.0


@dataclass
class _Held:
    """One domain. `reason` is empty while nothing is wrong with it; `shown`: this agent wrote that it is parked."""

    breaker: Breaker
    reason: str = ""
    of_queue: bool = False
    shown: bool = False
    worked: bool = False


class Parking:
    """Which of an agent's domains are parked."""

    def __init__(self, domains: Sequence[str], worker: str) -> None:
        self._worker = worker
        self._domains = {
            name: _Held(Breaker(name, lambda: True, first_s=RETRY_S, longest_s=RETRY_S)) for name in domains
        }

    def trip(self, domain: str, reason: str, *, of_queue: bool = False) -> None:
        """Park the domain. `of_queue`: the queue is what cannot be used, so a receive shows that it can again."""
        held = self._domains[domain]
        held.reason, held.of_queue, held.worked = reason, of_queue, False
        held.breaker.trip(reason)

    def reason(self, domain: str) -> str:
        """Why the domain is parked; empty when it is not."""
        return self._domains[domain].reason

    def allows(self, domain: str) -> bool:
        """Whether to receive for the domain now."""
        return self._domains[domain].breaker.allows()

    def received(self, domain: str) -> None:
        """A receive has succeeded."""
        if self._domains[domain].of_queue:
            self.works(domain)

    def works(self, domain: str) -> None:
        """An object of the domain was loaded: what was wrong is mended."""
        held = self._domains[domain]
        held.reason, held.of_queue, held.worked = "", False, True

    def publish(self, client: "Client", records: Mapping[str, DomainRecord]) -> None:
        """Write down what has changed since `records` were read. A domain that a person paused stays paused."""
        for name, held in self._domains.items():
            written = records[name].state if name in records else DomainState.RUNNING
            if written is DomainState.RUNNING and held.reason and held.shown:
                self._resumed(held)
            elif written is DomainState.RUNNING and held.reason:
                write_domain(
                    client, name, DomainState.PARKED, reason=held.reason, worker=self._worker, unless_paused=True
                )
                held.shown = True
            elif written is DomainState.PARKED and held.worked:
                write_domain(client, name, DomainState.RUNNING, reason="", worker=self._worker, unless_paused=True)
                held.shown = held.worked = False
            elif written is DomainState.PARKED:
                held.shown = bool(held.reason)

    def _resumed(self, held: _Held) -> None:
        """A person said that it is mended: tried at once."""
        held.reason, held.shown = "", False
        held.breaker.close()
