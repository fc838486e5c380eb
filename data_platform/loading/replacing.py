"""Objects that take the place of others: an overwrite, a new generation of the platform's own files. Under the lease.

Belongs here: which rows go and which come. Does not: the swap itself (swap.py), loads into free places (inserting.py).
"""

from collections.abc import Sequence
from dataclasses import replace

from data_platform.curation.manifest import StoredManifest, generation_of, read_manifest
from data_platform.errors import PlatformError
from data_platform.loading.contents import manifest_objects
from data_platform.loading.decide import Outcome
from data_platform.loading.errors import LoadError, diagnose
from data_platform.loading.group import Group
from data_platform.loading.lock import Lease
from data_platform.loading.message import ObjectEvent
from data_platform.loading.plans import Checked, Plan
from data_platform.loading.register import ObjectVersion
from data_platform.loading.results import Failure
from data_platform.loading.swap import Change, swap_partition


def replace_object(group: Group, lease: Lease, each: Checked, older: frozenset[str]) -> None:
    """Put the object in the place of `older` versions, and of whatever rows of its own are there already."""
    group.stage("swap")
    register, partition = group.warehouse.register, group.partition
    change = Change(older | {each.version.identity}, [each], Plan.STAGED)
    try:
        known = register.objects(partition)
        generation = swap_partition(group.warehouse, group.dataset, partition, lease, change, known, group.state)
    except Exception as error:
        if diagnose(error) is None or isinstance(error, PlatformError):
            raise
        group.fail(each.version, error)
        if lease.unresolved or register.partition(partition).replacing:
            raise
        return
    group.state = replace(group.state, generation=generation)
    outcome = Outcome.REPLACED if older else Outcome.LOADED
    group.done(outcome, each.version, each.footer.rows, Plan.STAGED)


def committed(group: Group, lease: Lease, events: Sequence[ObjectEvent]) -> list[ObjectEvent]:
    """The events that are to be looked at one by one: all of foreign producers, the manifest's of the platform.

    Of the platform's own files only a committed generation counts. When the table holds an older one, the whole of
    this one takes its place here.
    """
    ours = {event.version.identity: generation_of(event.key.file) for event in events}
    if not any(generation is not None for generation in ours.values()):
        return list(events)
    key = events[0].key
    bucket = events[0].version.bucket
    stored = read_manifest(group.warehouse.s3, bucket, key.domain, key.table, key.ds)
    current = 0 if stored is None else stored.manifest.generation
    listed = {version.key: version for version in manifest_objects(bucket, stored)}
    chosen: list[ObjectEvent] = []
    ahead = 0
    for event in events:
        generation = ours[event.version.identity]
        if generation is None:
            chosen.append(event)
        elif event.version.key in listed and listed[event.version.key].etag == event.version.etag:
            chosen.append(event)
            ahead = max(ahead, generation)
        else:
            group.done(Outcome.DEFERRED if generation > current else Outcome.SUPERSEDED, event.version, 0)
    held = group.warehouse.register.curated_generation(group.partition) if ahead else 0
    if stored is not None and ahead > held > 0:
        # The partition holds an older generation: its files go and all files of this one come, in one swap.
        _next_generation(group, lease, stored, listed, chosen)
        group.look_up(events)
    return chosen


def _next_generation(
    group: Group, lease: Lease, stored: StoredManifest, listed: dict[str, ObjectVersion], events: Sequence[ObjectEvent]
) -> None:
    by_key = {event.version.key: event.version for event in events}
    versions = [_as_told(by_key.get(key), version) for key, version in listed.items()]
    checked = group.checked(versions)
    if len(checked) != len(versions):
        refused = next(told for told in group.told.values() if isinstance(told, Failure))
        raise LoadError(refused.diagnosis.code, refused.diagnosis.reason)
    known = group.warehouse.register.objects(group.partition)
    without = {
        identity
        for identity, record in known.items()
        if generation_of(record.version.key.rpartition("/")[2]) is not None
    }
    change = Change(without, checked, Plan.REBUILD, stored.manifest.generation)
    group.stage("swap")
    swap_partition(group.warehouse, group.dataset, group.partition, lease, change, known, group.state)


def _as_told(event: ObjectVersion | None, listed: ObjectVersion) -> ObjectVersion:
    """The version as its event tells it (with a sequencer), where there is one."""
    return listed if event is None or event.identity != listed.identity else event
