"""Objects on S3 whose event never came: a day's listing against the register, and the load of what is missing.

EventBridge delivers at least once, but rules are changed, queues purged, and files up to 1,024 bytes raise no event.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from data_platform.catalog.keys import CuratedKey, KeyFormatError
from data_platform.catalog.models import Dataset, Overwrite
from data_platform.errors import ThrottledError, TransientError
from data_platform.loading.contents import expected_contents
from data_platform.loading.loader import Failure, LoadResult, load_objects
from data_platform.loading.message import ObjectEvent
from data_platform.loading.register import ObjectRecord, ObjectVersion, State, TablePartition
from data_platform.loading.warehouse import Warehouse

SETTLED_S = 900.0  # a younger object's event may still be on its way


@dataclass(frozen=True)
class Gap:
    """The object versions of one partition that S3 has and the register does not know as loaded or given up."""

    dataset: Dataset
    ds: date
    missing: tuple[ObjectVersion, ...]


@dataclass
class Mended:
    """What loading the missing objects came to; `failed` are reasons by key."""

    objects: int = 0
    rows: int = 0
    failed: dict[str, str] = field(default_factory=dict[str, str])


def find_gaps(warehouse: Warehouse, datasets: Sequence[Dataset], days: Sequence[date]) -> list[Gap]:
    """Compare the listings of `days` with the register. Objects younger than SETTLED_S are left to their events."""
    bucket = warehouse.settings.curated_bucket
    gaps: list[Gap] = []
    for dataset in datasets:
        for ds in days:
            contents = expected_contents(warehouse.s3, bucket, dataset.domain, dataset.name, ds)
            if not contents.objects:
                continue
            known = warehouse.register.objects(TablePartition(dataset.domain, dataset.name, ds))
            missing = missing_objects(contents.objects, known, dataset.overwrite, now=time.time())
            if missing:
                gaps.append(Gap(dataset, ds, missing))
    return gaps


def missing_objects(
    listed: Sequence[ObjectVersion], known: dict[str, ObjectRecord], overwrite: Overwrite, *, now: float
) -> tuple[ObjectVersion, ...]:
    """Which listed versions were neither loaded, nor dead-lettered, nor rejected by policy. `now`: Unix seconds."""
    held = {record.version.key for record in known.values() if record.state is State.LOADED}
    missing: list[ObjectVersion] = []
    for version in listed:
        record = known.get(version.identity)
        dealt_with = record is not None and record.state in {State.LOADED, State.FAILED}
        rejected = overwrite is Overwrite.REJECT and version.key in held
        young = now - version.event_at.timestamp() < SETTLED_S
        if not (dealt_with or rejected or young):
            missing.append(version)
    return tuple(missing)


def mend(warehouse: Warehouse, gap: Gap) -> Mended:
    """Load the missing objects through the same door as their events would have been.

    Raises TransientError when an engine is away: what was loaded stays, the next reconciliation goes on.
    """
    events: list[ObjectEvent] = []
    mended = Mended()
    for version in gap.missing:
        try:
            events.append(ObjectEvent(CuratedKey.parse(version.key), version, f"reconciliation-{uuid.uuid4()}"))
        except KeyFormatError as error:
            mended.failed[version.key] = error.message
    if not events:
        return mended
    for told in load_objects(warehouse, gap.dataset, events):
        if isinstance(told, LoadResult):
            mended.objects += 1
            mended.rows += told.rows
        else:
            _refuse_outage(told)
            mended.failed[told.version.key] = f"{told.diagnosis.code}: {told.diagnosis.reason}"
    return mended


def _refuse_outage(failure: Failure) -> None:
    if failure.diagnosis.system is not None:
        raise TransientError(failure.diagnosis.reason, hint="the next reconciliation goes on")
    if not failure.counted:
        raise ThrottledError(failure.diagnosis.reason)
