"""The one place that knows names on S3 and AWS: curated keys, object identities, queues, rules, event patterns.

Pure. URL-decoding of keys is the caller's: only it knows which envelope the key came in.
"""

import re
from dataclasses import dataclass
from datetime import date

from data_platform.errors import PlatformError

# EventBridge delivers nothing smaller: a file of a few hundred bytes is more often a marker than data.
MINIMUM_EVENT_BYTES = 1024
SUFFIX = ".parquet"
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,62}")
# Blanks, plus signs and any script are fine; ClickHouse would take * ? { } for a pattern and read other objects.
_FORBIDDEN_IN_FILE = re.compile(r"[\x00-\x1f\x7f/*?{}]")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
MAXIMUM_KEY_BYTES = 1024  # S3's own limit


class KeyFormatError(PlatformError):
    """An S3 key that is no curated object; `part` says which part is wrong (key, domain, table, partition, file)."""

    def __init__(self, message: str, *, part: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.part = part


@dataclass(frozen=True, slots=True, order=True)
class CuratedKey:
    """`<domain>/<table>/ds=YYYY-MM-DD/<file>.parquet`, taken apart. Always valid: made by `parse` or checked by it."""

    domain: str
    table: str
    ds: date
    file: str

    def __post_init__(self) -> None:
        """Raises KeyFormatError for parts that would not make a valid key."""
        _check_identifier("domain", self.domain)
        _check_identifier("table", self.table)
        _check_file(self.file)
        if len(self.key.encode()) > MAXIMUM_KEY_BYTES:
            raise KeyFormatError(f"key is longer than {MAXIMUM_KEY_BYTES} bytes", part="key")

    @classmethod
    def parse(cls, key: str) -> "CuratedKey":
        """Take a decoded S3 key apart. Raises KeyFormatError naming the part that does not fit."""
        parts = key.split("/")
        if len(parts) != 4:
            raise KeyFormatError(
                f"key {key!r} has {len(parts)} parts, not 4",
                part="key",
                hint="<domain>/<table>/ds=YYYY-MM-DD/<file>.parquet",
            )
        domain, table, partition, file = parts
        return cls(domain, table, parse_partition(partition), file)

    @property
    def key(self) -> str:
        """The S3 key."""
        return f"{self.prefix}{self.file}"

    @property
    def partition(self) -> str:
        """`ds=YYYY-MM-DD`."""
        return f"ds={self.ds.isoformat()}"

    @property
    def prefix(self) -> str:
        """S3 prefix of the partition, with the closing slash."""
        return partition_prefix(self.domain, self.table, self.ds)

    @property
    def dataset(self) -> str:
        """`<domain>/<table>`, the dataset's name in the catalogue."""
        return f"{self.domain}/{self.table}"

    def __str__(self) -> str:
        return self.key


def parse_partition(text: str) -> date:
    """The day of `ds=YYYY-MM-DD`. Raises KeyFormatError unless it is a real date in exactly this form."""
    name, equals, day = text.partition("=")
    if name != "ds" or not equals:
        raise KeyFormatError(f"partition {text!r} is not ds=YYYY-MM-DD", part="partition")
    # fromisoformat alone would take 20130101 and 2013-W01-1, and \d alone other scripts' digits.
    if not day.isascii() or not _DAY.fullmatch(day):
        raise KeyFormatError(f"partition {text!r} is not ds=YYYY-MM-DD", part="partition")
    try:
        return date.fromisoformat(day)
    except ValueError:
        raise KeyFormatError(f"partition {text!r} is no date of the calendar", part="partition") from None


def partition_prefix(domain: str, table: str, ds: date) -> str:
    """S3 prefix of one curated partition, with the closing slash: `<domain>/<table>/ds=YYYY-MM-DD/`."""
    return f"{domain}/{table}/ds={ds.isoformat()}/"


def object_identity(bucket: str, key: str, version: str) -> str:
    """The text in `_object`: `s3://<bucket>/<key>@<version>`; what `version` is, the loader decides (id, else ETag)."""
    return f"s3://{bucket}/{key}@{version}"


def parse_object_identity(text: str) -> tuple[str, str, str]:
    """Bucket, key and version of an `_object` value. Raises KeyFormatError for any other text."""
    match = re.fullmatch(r"s3://([^/]+)/(.+)@([^@/]+)", text, flags=re.DOTALL)
    if match is None:
        raise KeyFormatError(f"{text!r} is no object identity", part="key", hint="s3://<bucket>/<key>@<version>")
    return match[1], match[2], match[3]


def queue_name(env: str, domain: str) -> str:
    """SQS queue of a domain's load events."""
    return f"{env}-{domain}-load-queue"


def dlq_name(env: str, domain: str) -> str:
    """SQS dead-letter queue of a domain."""
    return f"{env}-{domain}-load-dlq"


def rule_name(env: str, domain: str) -> str:
    """EventBridge rule that fills a domain's queue."""
    return f"{env}-{domain}-load-rule"


def event_pattern(bucket: str, domain: str) -> dict[str, object]:
    """EventBridge pattern of a domain's curated objects: created, `<domain>/*.parquet`, above 1,024 bytes."""
    return {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {
            "bucket": {"name": [bucket]},
            "object": {
                "key": [{"wildcard": f"{domain}/*{SUFFIX}"}],
                "size": [{"numeric": [">", MINIMUM_EVENT_BYTES]}],
            },
        },
    }


# What an input transformer can pass on; it can neither parse the key nor make a UUID (the event's id serves).
INPUT_PATHS = {
    "bucket": "$.detail.bucket.name",
    "key": "$.detail.object.key",
    "size": "$.detail.object.size",
    "etag": "$.detail.object.etag",
    "sequencer": "$.detail.object.sequencer",
    "version": "$.detail.object.version-id",
    "event": "$.id",
}
# Quotes stay off around a lone placeholder: EventBridge writes the JSON value itself (text quoted, numbers bare).
INPUT_TEMPLATE = (
    '{"bucket": <bucket>, "key": <key>, "file_size": <size>, "etag": <etag>, '
    '"sequencer": <sequencer>, "version_id": <version>, "correlation_id": <event>}'
)


def input_transformer() -> dict[str, object]:
    """EventBridge input transformer that makes the loader's message out of an S3 event."""
    return {"InputPathsMap": dict(INPUT_PATHS), "InputTemplate": INPUT_TEMPLATE}


def _check_identifier(part: str, text: str) -> None:
    if not _IDENTIFIER.fullmatch(text):
        hint = "a-z, then a-z, 0-9 and _, at most 63 characters"
        raise KeyFormatError(f"{part} {text!r} is no name", part=part, hint=hint)


def _check_file(file: str) -> None:
    if not file.endswith(SUFFIX) or file == SUFFIX:
        raise KeyFormatError(f"file {file!r} is no {SUFFIX} file", part="file")
    found = _FORBIDDEN_IN_FILE.search(file)
    if found is not None or ".." in file:
        what = ".." if found is None else found.group()
        raise KeyFormatError(f"file {file!r} has {what!r} in its name", part="file")
