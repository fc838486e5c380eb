"""The UNLOAD statement: what is refused before Redshift sees it, and that no text survives quoting altered."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_platform.unload.statement import UnloadOptions, build_unload, quote_literal, unquote_literal

pytestmark = pytest.mark.unit
TARGET = "s3://bucket/unload-results/a/1/"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"format": "parquet", "header": True}, "excludes header"),
        ({"format": "parquet", "delimiter": "|"}, "excludes delimiter"),
        ({"format": "parquet", "null_as": "-"}, "excludes nullAs"),
        ({"format": "parquet", "compression": "gzip"}, "compresses itself"),
        ({"format": "parquet", "compression": "zstd"}, "compresses itself"),
        ({"format": "parquet", "compression": "bzip2"}, "compresses itself"),
        ({"format": "parquet", "max_file_size_mb": 33}, "multiple of 32"),
        ({"format": "json", "header": True}, "excludes header"),
        ({"format": "json", "delimiter": "|"}, "excludes delimiter"),
        ({"format": "json", "null_as": ""}, "excludes nullAs"),
        ({"format": "csv", "delimiter": "||"}, "at most 1"),
        ({"format": "csv", "delimiter": ""}, "at least 1"),
        ({"format": "csv", "delimiter": "é"}, "ASCII"),
        ({"format": "csv", "delimiter": "\n"}, "newline"),
        ({"format": "csv", "delimiter": '"'}, "quote"),
        ({"format": "csv", "delimiter": "\\"}, "backslash"),
        ({"format": "csv", "delimiter": "\0"}, "NUL"),
        ({"format": "csv", "max_file_size_mb": 4}, "greater than or equal to 5"),
        ({"format": "csv", "max_file_size_mb": 6349}, "less than or equal to 6348"),
        ({"format": "csv", "null_as": "x" * 129}, "at most 128"),
        ({"partition_by": ("a", "A")}, "twice"),
        ({"partition_by": ('a"; drop',)}, "match"),
        ({"region": "eu-central"}, "match"),
        ({"format": "xml"}, "Input should be"),
        ({"compression": "lzop"}, "Input should be"),
        ({"alowoverwrite": True}, "Extra inputs"),
    ],
)
def test_a_conflict_is_refused_with_its_reason(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        UnloadOptions.model_validate(options)


def test_every_conflict_is_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        UnloadOptions.model_validate({"format": "parquet", "header": True, "delimiter": ",", "compression": "gzip"})
    assert all(word in str(caught.value) for word in ("header", "delimiter", "compression"))


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
@example("\\")
@example("'")
@example("\\'")
@example("coalesce(a,'')||coalesce(b,'')")
@example("a -- comment")
def test_any_text_comes_back_from_its_literal(text: str) -> None:
    assert unquote_literal(quote_literal(text)) == text


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_a_literal_never_ends_early(text: str) -> None:
    statement = build_unload(text, TARGET, UnloadOptions(), iam_role="default")
    assert statement.startswith("UNLOAD (")
    inner = statement[len("UNLOAD (") : statement.index("\nTO 's3://bucket") - 1]
    assert unquote_literal(inner) == f"{text}\n"


def test_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        quote_literal("a\0b")


@pytest.mark.parametrize("broken", ["", "'", "abc", "'a", "'a'b'", "'a\\'"])
def test_what_is_no_whole_literal_is_refused(broken: str) -> None:
    with pytest.raises(ValueError, match="literal"):
        unquote_literal(broken)


@pytest.mark.parametrize("target", ["s3://bucket/prefix", "bucket/prefix/", "https://bucket/prefix/", ""])
def test_a_target_is_a_prefix_of_its_own(target: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        build_unload("SELECT 1", target, UnloadOptions(), iam_role="default")


def test_the_default_statement_is_parquet_with_a_verbose_manifest() -> None:
    role = "arn:aws:iam::000000000000:role/o'neill"
    assert build_unload("SELECT 1", TARGET, UnloadOptions(), iam_role=role).splitlines() == [
        "UNLOAD ('SELECT 1",
        "')",
        "TO 's3://bucket/unload-results/a/1/'",
        "IAM_ROLE 'arn:aws:iam::000000000000:role/o''neill'",
        "FORMAT PARQUET",
        "MANIFEST VERBOSE",
        "PARALLEL ON",
    ]


@pytest.mark.parametrize(
    ("options", "clauses"),
    [
        ({"format": "csv", "header": True, "compression": "gzip"},
         ["FORMAT CSV", "DELIMITER ','", "HEADER", "GZIP", "EXTENSION 'csv.gz'"]),
        ({"format": "csv", "delimiter": "\t", "null_as": "\\N"}, ["DELIMITER '\t'", r"NULL AS '\\N'"]),
        ({"format": "json", "compression": "zstd"}, ["FORMAT JSON", "ZSTD", "EXTENSION 'json.zst'"]),
        ({"format": "legacy", "delimiter": "|"}, ["DELIMITER '|'", "ADDQUOTES"]),
        ({"parallel": False, "max_file_size_mb": 64}, ["PARALLEL OFF", "MAXFILESIZE 64 MB"]),
        ({"partition_by": ("a", "b"), "region": "eu-central-1"}, ['PARTITION BY ("a", "b")', "REGION 'eu-central-1'"]),
    ],
)  # fmt: skip
def test_options_become_clauses(options: dict[str, object], clauses: list[str]) -> None:
    statement = build_unload("SELECT 1", TARGET, UnloadOptions.model_validate(options), iam_role="default")
    assert set(clauses) <= set(statement.splitlines())
    assert "IAM_ROLE default" in statement
    assert "MANIFEST VERBOSE" in statement
