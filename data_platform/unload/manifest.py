"""The manifest of an UNLOAD and the proof that a result is whole. Pure: what is listed and counted comes from outside.

Proof: manifest entries and listed objects are the same set, each object has its length, the record counts add up to the
total and to the session's own count (header lines considered). No manifest is right only for an empty result.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_platform.errors import PlatformError

MANIFEST_NAME = "manifest"


class ProofError(PlatformError):
    """The result in S3 is not what the warehouse says it wrote; says what differs."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class EntryMeta(_Model):
    """Length in bytes and records (header lines included) of one file."""

    content_length: Annotated[int, Field(ge=0)]
    record_count: Annotated[int, Field(ge=0)]


class Entry(_Model):
    """One file of the result."""

    url: Annotated[str, Field(pattern=r"^s3://[^/]+/.+")]
    meta: EntryMeta


class Manifest(_Model):
    """MANIFEST VERBOSE, as far as the platform reads it."""

    entries: tuple[Entry, ...]
    meta: EntryMeta


@dataclass(frozen=True)
class UnloadedFile:
    """One proven file: its key in the unload bucket, its bytes, its rows without header lines."""

    key: str
    bytes: int
    rows: int


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest. Raises ProofError saying which part does not fit."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProofError(f"the UNLOAD manifest is not valid at {where or 'its root'}: {first['msg']}") from None


def prove(
    manifest: Manifest | None, listed: Mapping[str, int], *, bucket: str, count: int, header: bool = False
) -> tuple[UnloadedFile, ...]:
    """The files of a whole result, or ProofError with everything that differs.

    `listed` maps the keys found under the prefix (the manifest aside) to their sizes; `count` is the session's
    pg_last_unload_count().
    """
    if manifest is None:
        if count == 0 and not listed:
            return ()
        raise ProofError(f"no manifest, but the warehouse counted {count} rows and {len(listed)} files are there")
    problems: list[str] = []
    root = f"s3://{bucket}/"
    entries = {entry.url.removeprefix(root): entry.meta for entry in manifest.entries}
    if len(entries) != len(manifest.entries):
        problems.append("the manifest names a file twice")
    problems.extend(f"missing from S3: {key}" for key in sorted(entries.keys() - listed.keys()))
    problems.extend(f"not in the manifest: {key}" for key in sorted(listed.keys() - entries.keys()))
    problems.extend(
        f"{key} has {listed[key]} bytes, the manifest says {entries[key].content_length}"
        for key in sorted(entries.keys() & listed.keys())
        if listed[key] != entries[key].content_length
    )
    records = sum(meta.record_count for meta in entries.values())
    if records != manifest.meta.record_count:
        problems.append(f"the files add up to {records} records, the manifest's total is {manifest.meta.record_count}")
    header_lines = len(entries) if header else 0
    if records - header_lines != count:
        problems.append(f"the files hold {records - header_lines} rows, the warehouse counted {count}")
    if problems:
        raise ProofError("the UNLOAD result is not whole: " + "; ".join(problems), hint="run it again")
    lines = 1 if header else 0
    return tuple(
        UnloadedFile(key, meta.content_length, meta.record_count - lines) for key, meta in sorted(entries.items())
    )
