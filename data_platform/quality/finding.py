"""What a check found, in words a person can act on. Pure data; Dagster's events are made of it in assets/checks.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Weight(StrEnum):
    """What a breach means: an error is wrong data, a warning is worth a look."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check of one partition; `facts` are the numbers behind the sentence."""

    check: str
    passed: bool
    sentence: str
    weight: Weight = Weight.ERROR
    facts: Mapping[str, int | float | str] = field(default_factory=dict[str, int | float | str])
