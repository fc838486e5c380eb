"""S3 as AWS answers it where moto is kinder or slower: presigned URLs, listing, ranges, conditional writes."""

import base64
import io
import os
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

pytestmark = pytest.mark.integration
MIB = 2**20


def fetch(
    url: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    request = urllib.request.Request(url, method=method, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture(scope="module")
def presigned_bucket(aws: Any) -> str:
    bucket = aws.bucket(versioned=True)
    aws.s3.put_object(Bucket=bucket, Key="a b/ü+&.csv", Body=b"one")
    return bucket


@pytest.mark.parametrize("version", ["s3v4", "s3"])
class TestPresigned:
    def url(self, aws: Any, version: str, bucket: str, method: str = "get_object", **options: Any) -> str:
        client = aws.client("s3", signature_version=version)
        params = {"Bucket": bucket, "Key": "a b/ü+&.csv", **options.pop("params", {})}
        return client.generate_presigned_url(method, Params=params, **{"ExpiresIn": 60, **options})

    def test_a_good_url_serves_the_object(self, aws: Any, version: str, presigned_bucket: str) -> None:
        assert fetch(self.url(aws, version, presigned_bucket)) == (200, "one")

    def test_header_overrides_and_versions_are_signed(self, aws: Any, version: str, presigned_bucket: str) -> None:
        version_id = aws.s3.head_object(Bucket=presigned_bucket, Key="a b/ü+&.csv")["VersionId"]
        params = {"ResponseContentDisposition": 'attachment; filename="x y.csv"', "VersionId": version_id}
        assert fetch(self.url(aws, version, presigned_bucket, params=params)) == (200, "one")

    def test_a_bucket_can_be_listed(self, aws: Any, version: str, presigned_bucket: str) -> None:
        client = aws.client("s3", signature_version=version)
        url = client.generate_presigned_url("list_objects_v2", Params={"Bucket": presigned_bucket, "Prefix": "a b/"})
        status, body = fetch(url)
        assert status == 200
        assert "<KeyCount>1</KeyCount>" in body

    def test_put_and_head_urls_work(self, aws: Any, version: str, presigned_bucket: str) -> None:
        url = self.url(
            aws, version, presigned_bucket, "put_object", params={"Key": f"put-{version}", "ContentType": "text/csv"}
        )
        assert fetch(url, "PUT", b"two", {"Content-Type": "text/html"})[0] == 403, "the type is signed"
        assert fetch(url, "PUT", b"two", {"Content-Type": "text/csv"})[0] == 200
        assert aws.s3.get_object(Bucket=presigned_bucket, Key=f"put-{version}")["Body"].read() == b"two"
        assert fetch(self.url(aws, version, presigned_bucket, "head_object"), "HEAD")[0] == 200

    def test_a_changed_signature_is_refused(self, aws: Any, version: str, presigned_bucket: str) -> None:
        url = self.url(aws, version, presigned_bucket)
        name = "X-Amz-Signature=" if version == "s3v4" else "Signature="
        before, _, after = url.partition(name)
        status, body = fetch(f"{before}{name}{'0' if after[0] != '0' else '1'}{after[1:]}")
        assert status == 403
        assert "SignatureDoesNotMatch" in body

    def test_another_key_under_the_same_signature_is_refused(
        self, aws: Any, version: str, presigned_bucket: str
    ) -> None:
        aws.s3.put_object(Bucket=presigned_bucket, Key="secret", Body=b"s")
        url = self.url(aws, version, presigned_bucket).replace("a%20b/%C3%BC%2B%26.csv", "secret")
        assert "SignatureDoesNotMatch" in fetch(url)[1]

    def test_another_method_is_refused(self, aws: Any, version: str, presigned_bucket: str) -> None:
        assert fetch(self.url(aws, version, presigned_bucket), "DELETE")[0] == 403

    def test_an_expired_url_is_refused(self, aws: Any, version: str, presigned_bucket: str) -> None:
        url = self.url(aws, version, presigned_bucket, ExpiresIn=1)
        time.sleep(2.1)
        status, body = fetch(url)
        assert status == 403
        assert "Request has expired" in body


def test_listing_pages_prefixes_and_delimiters_follow_key_order(aws: Any) -> None:
    bucket = aws.bucket(versioned=True)
    keys = ["a", "a-b", "a/1", "a/2/x", "a/2/y", "a/3", "b/1", "z é&<"]
    for key in reversed(keys):
        aws.s3.put_object(Bucket=bucket, Key=key, Body=b"1")
    aws.s3.put_object(Bucket=bucket, Key="gone/x", Body=b"1")
    aws.s3.delete_object(Bucket=bucket, Key="gone/x")

    def walk(operation: str, **options: Any) -> tuple[list[str], list[str]]:
        found: list[str] = []
        prefixes: list[str] = []
        for page in aws.s3.get_paginator(operation).paginate(
            Bucket=bucket, PaginationConfig={"PageSize": 2}, **options
        ):
            found += [entry["Key"] for entry in page.get("Contents", [])]
            prefixes += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        return found, prefixes

    for operation in ("list_objects_v2", "list_objects"):
        assert walk(operation) == (keys, [])
        assert walk(operation, Delimiter="/") == (["a", "a-b", "z é&<"], ["a/", "b/"])
        assert walk(operation, Prefix="a/", Delimiter="/") == (["a/1", "a/3"], ["a/2/"])
        assert walk(operation, Prefix="a/2") == (["a/2/x", "a/2/y"], [])
        assert walk(operation, Prefix="none") == ([], [])
    after = aws.s3.list_objects_v2(Bucket=bucket, StartAfter="a/2/x")
    assert [entry["Key"] for entry in after["Contents"]] == ["a/2/y", "a/3", "b/1", "z é&<"]
    entry = after["Contents"][0]
    assert entry["Size"] == 1
    assert entry["ETag"] == '"c4ca4238a0b923820dcc509a6f75849b"'
    with pytest.raises(ClientError, match="NoSuchBucket"):
        aws.s3.list_objects_v2(Bucket="no-such-bucket")


def test_listing_while_keys_come_and_go_ends_with_what_is_there(aws: Any) -> None:
    bucket = aws.bucket()
    stop = threading.Event()

    def keep_listing() -> None:
        while not stop.is_set():
            aws.s3.list_objects_v2(Bucket=bucket)

    def write(worker: int) -> None:
        for number in range(40):
            aws.s3.put_object(Bucket=bucket, Key=f"{worker}/{number:02}", Body=b"")
            if number % 2:
                aws.s3.delete_object(Bucket=bucket, Key=f"{worker}/{number:02}")

    lister = threading.Thread(target=keep_listing)
    writers = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for thread in (lister, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    lister.join()
    keys = [entry["Key"] for entry in aws.s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == [f"{worker}/{number:02}" for worker in range(3) for number in range(0, 40, 2)]


def test_hundreds_of_keys_list_quickly(aws: Any) -> None:
    bucket = aws.bucket()
    for number in range(300):
        aws.s3.put_object(Bucket=bucket, Key=f"k/{number:05}", Body=b"")
    url = aws.s3.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket})  # without boto3's parsing
    head = aws.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k/00000"})
    listing = min(timed(lambda: fetch(url)) for _ in range(7))
    small = min(timed(lambda: fetch(head)) for _ in range(7))
    assert fetch(url)[1].count("<Key>") == 300
    assert listing < 10 * small, f"{listing * 1000:.0f} ms, a small GET {small * 1000:.1f} ms; moto alone: 25 times"


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@pytest.mark.parametrize(
    ("wanted", "expected"), [("bytes=0-4", (0, 5)), ("bytes=999990-", (999_990, 1_000_000)), ("bytes=-3", (-3, None))]
)
def test_ranges(aws: Any, wanted: str, expected: tuple[int, int | None]) -> None:
    bucket = aws.bucket()
    body = bytes(range(250)) * 4000
    aws.s3.put_object(Bucket=bucket, Key="k", Body=body)
    answer = aws.s3.get_object(Bucket=bucket, Key="k", Range=wanted)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert answer["Body"].read() == body[slice(*expected)]
    with pytest.raises(ClientError, match="InvalidRange"):
        aws.s3.get_object(Bucket=bucket, Key="k", Range="bytes=2000000-")


def test_one_of_many_concurrent_conditional_puts_wins(aws: Any) -> None:
    bucket = aws.bucket()
    won: list[int] = []
    lost: list[str] = []

    def put(number: int) -> None:
        try:
            aws.s3.put_object(Bucket=bucket, Key="lock", Body=str(number).encode(), IfNoneMatch="*")
            won.append(number)
        except ClientError as error:
            lost.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=put, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == ["PreconditionFailed"] * 11
    assert [str(n).encode() for n in won] == [aws.s3.get_object(Bucket=bucket, Key="lock")["Body"].read()]


def test_concurrent_versions_of_one_key_are_all_kept(aws: Any) -> None:
    bucket = aws.bucket(versioned=True)
    ids: list[str] = []
    put = lambda: ids.append(aws.s3.put_object(Bucket=bucket, Key="k", Body=b"x")["VersionId"])  # noqa: E731
    threads = [threading.Thread(target=put) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listed = [version["VersionId"] for version in aws.s3.list_object_versions(Bucket=bucket)["Versions"]]
    assert sorted(listed) == sorted(ids)


def test_an_object_put_in_parts_can_be_copied_and_the_copy_be_read_with_its_checksum(aws: Any) -> None:
    bucket = aws.bucket()
    body = os.urandom(11 * MIB)
    parts = TransferConfig(multipart_threshold=MIB, multipart_chunksize=5 * MIB)
    aws.s3.upload_fileobj(io.BytesIO(body), bucket, "parts", Config=parts)
    aws.s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "parts"})
    told = aws.s3.head_object(Bucket=bucket, Key="parts", ChecksumMode="ENABLED")
    assert (told["ChecksumType"], told["ChecksumCRC32"][-2:]) == ("COMPOSITE", "-3")
    for key in ("parts", "copy"):  # the client compares what it read with the checksum
        assert aws.s3.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")["Body"].read() == body
    crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    assert aws.s3.head_object(Bucket=bucket, Key="copy", ChecksumMode="ENABLED")["ChecksumCRC32"] == crc
