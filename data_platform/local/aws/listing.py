"""ListObjects and ListObjectsV2 straight from the sorted names of a bucket. Here are the patches of moto's listing.

moto walks all keys of the bucket, and serialises the answer field by field: half a second for 1,000 keys.
"""

import base64
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit
from xml.sax.saxutils import escape

from moto.s3.exceptions import InvalidContinuationToken
from moto.s3.responses import S3Response

from data_platform.local.aws.objects import KeyStore, StoredKey

MAXIMUM_KEYS = 1000
LAST_CHARACTER = "\U0010ffff"
OWNER = "<Owner><ID>embedded</ID><DisplayName>embedded</DisplayName></Owner>"
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'


@dataclass(frozen=True)
class Page:
    """One page: live keys and common prefixes in key order, and the last name when there is more."""

    keys: list[StoredKey]
    prefixes: list[str]
    last: str | None


def list_page(store: KeyStore, *, prefix: str, delimiter: str, after: str, limit: int) -> Page:
    """At most `limit` entries with `prefix` that come after `after` (a key, or a common prefix that was listed)."""
    names = store.names()
    position = bisect_left(names, prefix)
    if after:
        listed_prefix = bool(delimiter) and after.endswith(delimiter) and delimiter in after[len(prefix) :]
        passed = bisect_left(names, after + LAST_CHARACTER) if listed_prefix else bisect_right(names, after)
        position = max(position, passed)
    keys: list[StoredKey] = []
    prefixes: list[str] = []
    last: str | None = None
    while position < len(names) and names[position].startswith(prefix):
        name = names[position]
        entry = store.get(name)
        if not isinstance(entry, StoredKey):  # a delete marker, or gone since the names were sorted
            position += 1
            continue
        if len(keys) + len(prefixes) >= limit:
            return Page(keys, prefixes, last)
        head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        if found:
            last = prefix + head + delimiter
            prefixes.append(last)
            position = bisect_left(names, last + LAST_CHARACTER)
        else:
            last = name
            keys.append(entry)
            position += 1
    return Page(keys, prefixes, None)


def _contents(keys: list[StoredKey], spell: Callable[[str], str], *, owner: bool) -> str:
    end = f"{OWNER if owner else ''}</Contents>"
    return "".join(
        f"<Contents><Key>{spell(key.name)}</Key><LastModified>{key.last_modified_ISO8601}</LastModified>"
        f"<ETag>&quot;{key.etag[1:-1]}&quot;</ETag><Size>{key.size}</Size>"
        f"<StorageClass>{key.storage_class}</StorageClass>{end}"
        for key in keys
    )


def _query(response: S3Response) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(response.request.raw_url).query, keep_blank_values=True))


def _answer(
    response: S3Response, fields: list[tuple[str, str]], page: Page, query: dict[str, str], *, owner: bool
) -> Any:
    spell = quote if query.get("encoding-type") == "url" else escape
    parts = [f"<{name}>{value}</{name}>" for name, value in fields]
    if query.get("encoding-type"):
        parts.append("<EncodingType>url</EncodingType>")
    if query.get("delimiter"):
        parts.append(f"<Delimiter>{spell(query['delimiter'])}</Delimiter>")
    parts.append(_contents(page.keys, spell, owner=owner))
    parts += [f"<CommonPrefixes><Prefix>{spell(prefix)}</Prefix></CommonPrefixes>" for prefix in page.prefixes]
    body = "".join((_HEAD, *parts, "</ListBucketResult>"))
    return 200, {**response.response_headers, "Content-Type": "application/xml"}, body


def _list_objects_v2(of_tables: Callable[..., Any]) -> Callable[..., Any]:
    def list_objects_v2(self: S3Response) -> Any:
        bucket = self.backend.get_bucket(self.bucket_name)
        if not isinstance(bucket.keys, KeyStore):
            return of_tables(self)
        query = _query(self)
        token = query.get("continuation-token")
        limit = min(int(query.get("max-keys") or MAXIMUM_KEYS), MAXIMUM_KEYS)
        after = query.get("start-after", "") if token is None else _decoded(token)
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        page = list_page(bucket.keys, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        spell = quote if query.get("encoding-type") == "url" else escape
        fields = [
            ("Name", bucket.name),
            ("Prefix", spell(prefix)),
            ("MaxKeys", str(limit)),
            ("KeyCount", str(len(page.keys) + len(page.prefixes))),
            ("IsTruncated", str(page.last is not None).lower()),
        ]
        if token is not None:
            fields.append(("ContinuationToken", escape(token)))
        elif after:
            fields.append(("StartAfter", spell(after)))
        if page.last is not None:
            fields.append(("NextContinuationToken", base64.urlsafe_b64encode(page.last.encode()).decode()))
        return _answer(self, fields, page, query, owner=query.get("fetch-owner") == "true")

    return list_objects_v2


def _list_objects(of_tables: Callable[..., Any]) -> Callable[..., Any]:
    def list_objects(self: S3Response) -> Any:
        bucket = self.backend.get_bucket(self.bucket_name)
        if not isinstance(bucket.keys, KeyStore):
            return of_tables(self)
        query = _query(self)
        limit = min(int(query.get("max-keys") or MAXIMUM_KEYS), MAXIMUM_KEYS)
        prefix, delimiter, marker = query.get("prefix", ""), query.get("delimiter", ""), query.get("marker", "")
        page = list_page(bucket.keys, prefix=prefix, delimiter=delimiter, after=marker, limit=limit)
        spell = quote if query.get("encoding-type") == "url" else escape
        fields = [
            ("Name", bucket.name),
            ("Prefix", spell(prefix)),
            ("Marker", spell(marker)),
            ("MaxKeys", str(limit)),
            ("IsTruncated", str(page.last is not None).lower()),
        ]
        if page.last is not None:
            fields.append(("NextMarker", spell(page.last)))
        return _answer(self, fields, page, query, owner=True)

    return list_objects


def _decoded(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except ValueError:
        raise InvalidContinuationToken from None


def install() -> None:
    """Patch moto's S3 listing; once per process."""
    # Walks and serialises every key: 0.35-0.6 s per 1,000.
    S3Response.list_objects_v2 = _list_objects_v2(S3Response.list_objects_v2)
    S3Response.list_objects = _list_objects(S3Response.list_objects)
