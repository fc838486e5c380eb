"""Parts of objects: the bytes asked for and nothing else, errors as botocore tells them, broken answers asked again."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from data_platform.clients import aws
from data_platform.clients.objects import ObjectReader, Part
from data_platform.local.cloud import Cloud

pytestmark = pytest.mark.integration
BODY = bytes(range(256)) * 40
KEY = "market/reader/ds=2024-01-01/part.parquet"


@dataclass(frozen=True)
class Stored:
    """An object, and who reads it."""

    reader: ObjectReader
    bucket: str
    etag: str

    def read(self, span: str, *, key: str = KEY, etag: str | None = None) -> Part:
        return self.reader.read(self.bucket, key, etag or self.etag, span)


@pytest.fixture(scope="module")
def stored(cloud: Cloud) -> Iterator[Stored]:
    s3, bucket = aws.s3(cloud.settings), cloud.settings.raw_bucket
    answer = s3.put_object(Bucket=bucket, Key=KEY, Body=BODY)
    yield Stored(ObjectReader(s3), bucket, answer["ETag"].strip('"'))
    s3.delete_object(Bucket=bucket, Key=KEY)


@pytest.mark.parametrize(
    ("span", "wanted"),
    [("bytes=-100", BODY[-100:]), ("bytes=-65536", BODY), ("bytes=0-3", BODY[:4]), ("bytes=7-7", BODY[7:8])],
)
def test_the_bytes_of_the_span_come_with_the_size_of_the_object(stored: Stored, span: str, wanted: bytes) -> None:
    assert stored.read(span) == Part(wanted, len(BODY))


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"span": "bytes=0-3", "key": f"{KEY}.gone"}, "NoSuchKey"),
        ({"span": "bytes=0-3", "etag": "0" * 32}, "PreconditionFailed"),
        ({"span": "bytes=90000-90001"}, "InvalidRange"),
    ],
)
def test_errors_are_those_of_botocore(stored: Stored, asked: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as raised:
        stored.read(**asked)
    assert raised.value.response.get("Error", {}).get("Code") == code


@pytest.mark.parametrize(
    ("fault", "how"), [("s3.truncate", {"bytes": 5}), ("s3.reset", {}), ("s3.error", {"status": 503})]
)
def test_what_broke_is_asked_again(stored: Stored, cloud: Cloud, fault: str, how: dict[str, Any]) -> None:
    faults = cloud.faults("aws")
    armed = faults.arm(fault, match={"method": "GET", "key": KEY}, times=1, **how)
    assert stored.read("bytes=-100") == Part(BODY[-100:], len(BODY))
    assert faults.struck(armed) == 1
