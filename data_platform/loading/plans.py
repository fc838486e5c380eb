"""How objects of one table partition go in: alone as one block, several small ones as one block, or by staging.

Pure. Decided from the footers: what a block takes in memory, and which objects read alike.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from data_platform.loading.footer import Footer
from data_platform.loading.register import ObjectVersion
from data_platform.loading.statement import listable, structure_of

MIB = 2**20
SMALL_BYTES = 2 * MIB  # uncompressed; a larger object gains nothing from company
LIST_OBJECTS = 100  # keys of one list: 107 objects a second against 28 alone, measured
LIST_BYTES = 64 * MIB
BLOCK_FACTOR = 4  # columns read, cast, sorted and written at once, against the footer's uncompressed size
BASE_BYTES = 96 * MIB  # buffers of the reader and the writer, whatever the object
ROW_BYTES = 16  # dictionaries make the uncompressed size of a column of few values meaningless


class Plan(StrEnum):
    """The way of an object into its table, as the history shows it."""

    ONE_BLOCK = "one block"
    LIST = "list"
    STAGED = "staged"
    REBUILD = "rebuild"
    NOTHING = "no rows"


@dataclass(frozen=True)
class Checked:
    """An object version whose footer fits its table."""

    version: ObjectVersion
    footer: Footer


@dataclass(frozen=True)
class Load:
    """Objects that go in with one statement; `memory` is the bytes its block may take."""

    plan: Plan
    objects: tuple[Checked, ...]
    memory: int


def memory_of(footers: Sequence[Footer]) -> int:
    """Bytes one block of these objects takes, estimated high."""
    content = sum(
        max(footer.uncompressed_bytes, footer.rows * ROW_BYTES * len(footer.schema.names)) for footer in footers
    )
    return BASE_BYTES + BLOCK_FACTOR * content


def plan_loads(objects: Sequence[Checked], *, memory: int, smaller: bool = False) -> list[Load]:
    """The statements that load `objects` (all of one partition) within `memory` bytes each.

    `smaller`: memory ran out before, so nothing goes in as one block.
    """
    loads: list[Load] = []
    alike: dict[tuple[str, str], list[Checked]] = defaultdict(list)
    for each in objects:
        if each.footer.rows == 0:
            loads.append(Load(Plan.NOTHING, (each,), 0))
        elif smaller or memory_of([each.footer]) > memory:
            loads.append(Load(Plan.STAGED, (each,), memory))
        elif each.footer.uncompressed_bytes <= SMALL_BYTES and listable(each.version.key):
            alike[each.version.bucket, structure_of(each.footer.schema)].append(each)
        else:
            loads.append(Load(Plan.ONE_BLOCK, (each,), memory_of([each.footer])))
    for group in alike.values():
        for company in _companies(group, memory):
            plan = Plan.LIST if len(company) > 1 else Plan.ONE_BLOCK
            loads.append(Load(plan, tuple(company), memory_of([each.footer for each in company])))
    return loads


def halves(load: Load) -> list[Load]:
    """A list that failed, as two: whoever is to blame is found in the end."""
    middle = len(load.objects) // 2
    parts = [part for part in (load.objects[:middle], load.objects[middle:]) if part]
    return [
        Load(Plan.LIST if len(part) > 1 else Plan.ONE_BLOCK, part, memory_of([each.footer for each in part]))
        for part in parts
    ]


def _companies(group: Sequence[Checked], memory: int) -> list[list[Checked]]:
    companies: list[list[Checked]] = []
    size = 0
    for each in sorted(group, key=lambda checked: checked.version.key):
        fits = (
            companies
            and len(companies[-1]) < LIST_OBJECTS
            and size + each.footer.uncompressed_bytes <= LIST_BYTES
            and memory_of([*(other.footer for other in companies[-1]), each.footer]) <= memory
        )
        if not fits:
            companies.append([])
            size = 0
        companies[-1].append(each)
        size += each.footer.uncompressed_bytes
    return companies
