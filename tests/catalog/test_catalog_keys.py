"""Names on S3 and AWS: keys taken apart and put together, object identities, event patterns."""

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.catalog.keys import (
    CuratedKey,
    KeyFormatError,
    dlq_name,
    event_pattern,
    input_transformer,
    object_identity,
    parse_object_identity,
    queue_name,
    rule_name,
)

pytestmark = pytest.mark.unit

names = st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True)
files = st.text(min_size=1, max_size=60).map(lambda text: f"{text}.parquet")


def fits(file: str) -> bool:
    try:
        CuratedKey("d", "t", date(2013, 1, 1), file)
    except KeyFormatError:
        return False
    return True


@given(names, names, st.dates(min_value=date(1000, 1, 1)), files.filter(fits))
def test_a_key_survives_being_made_and_taken_apart(domain: str, table: str, ds: date, file: str) -> None:
    made = CuratedKey(domain, table, ds, file)
    assert CuratedKey.parse(made.key) == made
    assert made.key == f"{domain}/{table}/{made.partition}/{file}"
    assert made.key.startswith(made.prefix)


@given(st.text(max_size=80) | st.from_regex(r"[a-z]+/[a-z]+/ds=[0-9-]{8,10}/.{0,20}\.parquet", fullmatch=True))
def test_any_text_is_the_key_it_says_or_refused(text: str) -> None:
    try:
        parsed = CuratedKey.parse(text)
    except KeyFormatError:
        return
    assert parsed.key == text


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("market/flights/ds=2013-01-01", "key"),
        ("market/flights/ds=2013-01-01/x/y.parquet", "key"),
        ("/market/flights/ds=2013-01-01/x.parquet", "key"),
        ("market//ds=2013-01-01/x.parquet", "table"),
        ("../flights/ds=2013-01-01/x.parquet", "domain"),
        ("market/../ds=2013-01-01/x.parquet", "table"),
        ("Market/flights/ds=2013-01-01/x.parquet", "domain"),
        ("market/fl-ights/ds=2013-01-01/x.parquet", "table"),
        ("market/flights/2013-01-01/x.parquet", "partition"),
        ("market/flights/dt=2013-01-01/x.parquet", "partition"),
        ("market/flights/ds=2013-02-30/x.parquet", "partition"),
        ("market/flights/ds=2013-1-1/x.parquet", "partition"),
        ("market/flights/ds=20130101/x.parquet", "partition"),
        ("market/flights/ds=2013-01-01T00/x.parquet", "partition"),
        ("market/flights/ds=٢٠١٣-01-01/x.parquet", "partition"),
        ("market/flights/ds=0000-01-01/x.parquet", "partition"),
        ("market/flights/ds=2013-01-01/x.csv", "file"),
        ("market/flights/ds=2013-01-01/x.parquet.gz", "file"),
        ("market/flights/ds=2013-01-01/.parquet", "file"),
        ("market/flights/ds=2013-01-01/", "file"),
        ("market/flights/ds=2013-01-01/..parquet", "file"),
        ("market/flights/ds=2013-01-01/*.parquet", "file"),  # ClickHouse would read other objects
        ("market/flights/ds=2013-01-01/{a,b}.parquet", "file"),
        ("market/flights/ds=2013-01-01/a\nb.parquet", "file"),
        (f"market/flights/ds=2013-01-01/{'x' * 1000}.parquet", "key"),
    ],
)
def test_what_is_no_curated_key_is_refused_naming_the_part(key: str, part: str) -> None:
    with pytest.raises(KeyFormatError) as error:
        CuratedKey.parse(key)
    assert error.value.part == part


@pytest.mark.parametrize("file", ["a b.parquet", "a+b=c&d.parquet", "사용자.parquet", "part-0.snappy.parquet"])
def test_whatever_s3_and_clickhouse_can_name_is_a_file(file: str) -> None:
    assert CuratedKey.parse(f"market/flights/ds=2013-01-01/{file}").file == file


@given(names, st.text(min_size=1, max_size=50), st.from_regex(r"[A-Za-z0-9._:-]{1,40}", fullmatch=True))
def test_an_object_identity_survives_being_made_and_taken_apart(bucket: str, key: str, version: str) -> None:
    assert parse_object_identity(object_identity(bucket, key, version)) == (bucket, key, version)


@pytest.mark.parametrize("text", ["", "s3://b", "s3://b/k", "b/k@1", "s3:///k@1"])
def test_what_is_no_object_identity_is_refused(text: str) -> None:
    with pytest.raises(KeyFormatError):
        parse_object_identity(text)


def test_names_on_aws() -> None:
    assert queue_name("dev", "market") == "dev-market-load-queue"
    assert dlq_name("dev", "market") == "dev-market-load-dlq"
    assert rule_name("dev", "market") == "dev-market-load-rule"


def test_the_pattern_of_a_domain() -> None:
    detail: Any = event_pattern("curated", "market")["detail"]
    assert detail["bucket"] == {"name": ["curated"]}
    assert detail["object"] == {"key": [{"wildcard": "market/*.parquet"}], "size": [{"numeric": [">", 1024]}]}


def test_the_transformer_passes_what_the_message_needs_and_names_each_path_once() -> None:
    made: Any = input_transformer()
    paths, template = made["InputPathsMap"], made["InputTemplate"]
    assert all(template.count(f"<{name}>") == 1 for name in paths)
    assert template.count("<") == len(paths)
    fields = ("bucket", "key", "file_size", "etag", "sequencer", "version_id", "correlation_id")
    assert all(f'"{field}": <' in template for field in fields)
