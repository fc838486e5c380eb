"""What a check found, in words a person can act on. Pure data; Dagster's events are made of it in assets/checks.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from data_platform.catalog.models import Dataset, Mode


class Weight(StrEnum):
    """What a breach means: an error is wrong data, a warning is worth a look."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check of one partition.

    `sentence` says what was found, `step` what to do where it did not pass, `facts` are the numbers behind them.
    """

    check: str
    passed: bool
    sentence: str
    weight: Weight = Weight.ERROR
    step: str = ""
    facts: Mapping[str, int | float | str] = field(default_factory=dict[str, int | float | str])


def make_again(dataset: Dataset, ds: date | None, *, stages: str = "") -> str:
    """The command that makes a day of a dataset (None or a snapshot: all there is) again, from the first of `stages`.

    `stages`: layers separated by commas; empty for all.
    """
    days = "" if ds is None or dataset.mode is Mode.SNAPSHOT else f" --from {ds} --to {ds}"
    return f"data-platform backfill {dataset.key}{days}{' --stages ' + stages if stages else ''}"
