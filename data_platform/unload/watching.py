"""What a process's own attempts need while they run: their leases kept, their size watched, their queries stopped.

One thread for all of them. Running attempts is workers.py.
"""

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from data_platform.clients import redshift
from data_platform.settings import Settings
from data_platform.unload import warehouse
from data_platform.unload.execution import target_of
from data_platform.unload.outcome import Stop

if TYPE_CHECKING:
    from redshift_connector import Connection
    from sqlalchemy import Engine

    from data_platform.ledger.unload_claims import Claim

log = logging.getLogger(__name__)

WATCH_S = 0.5
CAPS_EVERY_S = 2.0


@dataclass
class Running:
    """An attempt this process runs. `key` is there once its session is."""

    claim: "Claim"
    key: redshift.CancelKey | None = None
    stop: Stop | None = None
    message: str = ""

    @property
    def number(self) -> tuple[str, int]:
        """Request and attempt."""
        return self.claim.request_id, self.claim.attempt


class Watcher:
    """Watches the attempts that are added, until they are removed."""

    def __init__(self, settings: Settings, ledger: "Engine", owner: str, lease: timedelta) -> None:
        self._settings = settings
        self._ledger = ledger
        self._owner = owner
        self._lease = lease
        self._running: dict[tuple[str, int], Running] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="unload-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ended.set()
        self._thread.join(5)

    def add(self, running: Running) -> None:
        """An attempt begins."""
        with self._lock:
            self._running[running.number] = running

    def remove(self, running: Running) -> None:
        """It has ended."""
        with self._lock:
            self._running.pop(running.number, None)

    def stop_all(self, stop: Stop) -> None:
        """Cancel what runs, unless it is being stopped already."""
        with self._lock:
            for running in self._running.values():
                running.stop = running.stop or stop

    def over_cap(self, rows: int, size: int) -> tuple[Stop, str] | None:
        """The cap that is passed and what to say of it; None within all."""
        if rows > self._settings.unload_max_rows:
            return Stop.ROW_CAP, f"more than {self._settings.unload_max_rows} rows"
        if size > self._settings.unload_max_mb * 2**20:
            return Stop.BYTE_CAP, f"more than {self._settings.unload_max_mb} MiB"
        return None

    def _watch(self) -> None:
        caps_at = 0.0
        session: Connection | None = None
        while not self._ended.wait(WATCH_S):
            with self._lock:
                running = dict(self._running)
            if not running:
                continue
            try:
                self._beat(running)
            except Exception as error:  # noqa: BLE001 - the database may be away; leases outlast a short absence
                log.warning("leases could not be renewed: %s", one_line(error))
            self._cancel_stopped(running)
            if time.monotonic() >= caps_at:
                caps_at = time.monotonic() + CAPS_EVERY_S
                session = self._watch_caps(running, session)
        if session is not None:
            with suppress(Exception):
                session.close()

    def _beat(self, running: dict[tuple[str, int], Running]) -> None:
        from data_platform.ledger import unload_claims

        with self._ledger.begin() as connection:
            held = unload_claims.beat(connection, self._owner, self._lease)
        for number, each in running.items():
            if number not in held:
                with self._lock:
                    still = self._running.get(number) is each
                each.stop = each.stop or (Stop.LOST if still else None)
            elif held[number]:
                each.stop = each.stop or Stop.CANCEL

    def _cancel_stopped(self, running: dict[tuple[str, int], Running]) -> None:
        for each in running.values():
            if each.stop is not None and each.key is not None:
                # Every round until it has ended: a cancel that comes between two statements is lost.
                with suppress(OSError):
                    redshift.cancel(each.key)

    def _watch_caps(self, running: dict[tuple[str, int], Running], session: "Connection | None") -> "Connection | None":
        """Read the totals, write them down as progress, stop what is over a cap."""
        from data_platform.ledger import unload_attempts

        try:
            session = session or redshift.connect(self._settings)
            totals = warehouse.running_totals(session)
        except Exception as error:  # noqa: BLE001 - the views are looked at again; an end is checked in any case
            log.info("the unload views cannot be read: %s", one_line(error))
            if session is not None:
                with suppress(Exception):
                    session.close()
            return None
        seen: dict[tuple[str, int], tuple[int, int, str]] = {}
        for number, each in running.items():
            found = totals.get(target_of(self._settings, *number).url)
            if found is None:
                continue
            seen[number] = (found.rows, found.bytes, str(found.query_id))
            over = self.over_cap(found.rows, found.bytes)
            if over is not None and each.stop is None:
                each.message = over[1]
                each.stop = over[0]
        if seen:
            try:
                with self._ledger.begin() as connection:
                    unload_attempts.progress(connection, seen)
            except Exception as error:  # noqa: BLE001 - progress is a service; the outcome is written by the worker
                log.info("progress was not written: %s", one_line(error))
        return session


def one_line(error: BaseException) -> str:
    """Its first line; SQL and parameters of a driver's message stay out of the log."""
    return (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0][:300]
