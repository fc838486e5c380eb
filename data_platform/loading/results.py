"""What became of an event: its object's rows are in the table, need not be, or could not be. Plain values."""

from dataclasses import dataclass

from data_platform.errors import Fault
from data_platform.loading.decide import Outcome
from data_platform.loading.errors import CODES, Diagnosis
from data_platform.loading.register import ObjectVersion


@dataclass(frozen=True)
class LoadResult:
    """What became of one event; `rows` are the object's rows now in the table, `seconds` those of its group."""

    outcome: Outcome
    version: ObjectVersion
    rows: int
    seconds: float
    plan: str = ""

    @property
    def final(self) -> bool:
        """Whether the message may be deleted."""
        return self.outcome is not Outcome.DEFERRED


@dataclass(frozen=True)
class Failure:
    """Why a load failed. `attempts` counts this one where it counts: not while an engine is away (`counted`)."""

    version: ObjectVersion
    diagnosis: Diagnosis
    attempts: int
    counted: bool

    @property
    def for_good(self) -> bool:
        """Whether it goes to the dead letters now: for good by nature, or tried as often as its code allows."""
        if self.diagnosis.fault is Fault.PERMANENT:
            return True
        return self.counted and self.attempts >= CODES[self.diagnosis.code].attempts


Told = LoadResult | Failure
