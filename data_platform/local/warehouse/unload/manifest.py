"""The manifest of an UNLOAD, and the lies a test may have it tell. Pure."""

import json
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from data_platform.local.warehouse.unload.columns import Column
from data_platform.local.warehouse.unload.contract import UnloadedFile

AUTHOR = {"name": "Amazon Redshift", "version": "1.0.0"}


def build_manifest(files: Sequence[UnloadedFile], columns: Sequence[Column], *, verbose: bool) -> dict[str, Any]:
    """`MANIFEST` lists the files with their lengths, `MANIFEST VERBOSE` also record counts, schema, totals, author."""
    if not verbose:
        return {"entries": [{"url": file.url, "meta": {"content_length": file.bytes}} for file in files]}
    return {
        "entries": [
            {"url": file.url, "meta": {"content_length": file.bytes, "record_count": file.rows}} for file in files
        ],
        "schema": {"elements": [{"name": column.name, "type": column.manifest_type} for column in columns]},
        "meta": {
            "content_length": sum(file.bytes for file in files),
            "record_count": sum(file.rows for file in files),
        },
        "author": AUTHOR,
    }


def lie(manifest: dict[str, Any], what: str) -> dict[str, Any]:
    """The manifest with one lie: missing_entry, extra_entry, wrong_count or wrong_length.

    Raises ValueError for any other.
    """
    told = deepcopy(manifest)
    entries: list[dict[str, Any]] = told["entries"]
    meta: dict[str, int] = entries[0]["meta"]
    if what == "missing_entry":
        entries.pop()
    elif what == "extra_entry":
        extra = deepcopy(entries[-1])
        extra["url"] += "_never_written"
        entries.append(extra)
    elif what == "wrong_count":
        meta["record_count"] = meta.get("record_count", 0) + 1
    elif what == "wrong_length":
        meta["content_length"] += 1
    else:
        raise ValueError(f"unknown lie {what!r}")
    return told


def as_bytes(manifest: dict[str, Any]) -> bytes:
    """The object's content."""
    return json.dumps(manifest, indent=2, ensure_ascii=False).encode()
