"""Bytes as text: gzip of any shape, byte order marks, declared encodings, limits; names of files."""

import gzip
from collections.abc import Iterator

import pytest

from data_platform.errors import ConfigurationError
from data_platform.statistics.errors import shown
from data_platform.statistics.source import UnreadableError, parse_url, text_blocks

pytestmark = pytest.mark.unit
TEXT = b"user_id,login_count,post_count\n" + b"".join(b"U%d,%d,1\n" % (i, i) for i in range(2000))


def text_of(data: bytes, *, size: int = 100, encoding: str = "utf-8", max_bytes: int = 1 << 30) -> bytes:
    def pieces() -> Iterator[bytes]:
        for at in range(0, len(data), size):
            yield data[at : at + size]

    return b"".join(text_blocks(pieces(), encoding=encoding, max_bytes=max_bytes))


@pytest.mark.parametrize("size", [1, 2, 7, 100_000])
@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(TEXT),
        gzip.compress(TEXT[:500]) + gzip.compress(TEXT[500:]),
        gzip.compress(TEXT) + b"\0" * 512,
        gzip.compress(b"") + gzip.compress(TEXT),
        TEXT,
    ],
    ids=["one member", "two members", "padded", "an empty member", "plain"],
)
def test_gzip_is_known_by_its_content(packed: bytes, size: int) -> None:
    assert text_of(packed, size=size) == TEXT


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-9], lambda d: d[:300], lambda d: d[:-5] + b"xxxxx", lambda d: d + b"x"]
)
def test_damaged_gzip_is_refused(damage: "object") -> None:
    with pytest.raises(UnreadableError) as caught:
        text_of(damage(gzip.compress(TEXT)))  # pyright: ignore[reportCallIssue]
    assert caught.value.rule == "gzip"


def test_a_bomb_stops_at_the_limit() -> None:
    with pytest.raises(UnreadableError, match="max_bytes"):
        text_of(gzip.compress(b"0" * 10_000_000), max_bytes=1_000_000)


@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_one_byte_order_mark_is_taken_off(size: int) -> None:
    assert text_of(b"\xef\xbb\xbfab", size=size) == b"ab"
    assert text_of(b"\xef\xbb\xbf\xef\xbb\xbfab", size=size) == b"\xef\xbb\xbfab"
    assert text_of(b"\xef\xbb\xbf", size=size) == b""


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp", "utf-16", "utf-16-le"])
def test_a_declared_encoding_is_read(encoding: str) -> None:
    text = "ユーザーID,ログイン回数,投稿回数\nU1,1,2\n"
    for size in (1, 3, 1000):
        assert text_of(text.encode(encoding), size=size, encoding=encoding).decode() == text


def test_an_address_is_taken_apart() -> None:
    assert parse_url("s3://b/incoming/a b.csv") == ("b", "incoming/a b.csv", None)
    assert parse_url("s3://b/k.csv?versionId=a%2Fb") == ("b", "k.csv", "a/b")
    for wrong in ("b/k.csv", "s3://b", "s3://b/", "s3:///k", "https://b/k"):
        with pytest.raises(ConfigurationError):
            parse_url(wrong)


def test_a_value_is_shown_without_control_characters_and_shortened() -> None:
    assert shown("a\0b\n") == "a\\x00b\\n"
    assert shown("ユーザー") == "ユーザー"
    assert shown("x" * 500) == "x" * 200 + "... (500 characters)"
