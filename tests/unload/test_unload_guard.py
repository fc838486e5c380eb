"""The guard against a corpus of attacks and a corpus of analysts' queries."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data_platform.unload import guard as guarding
from data_platform.unload.guard import MAX_SQL_CHARACTERS, guard
from data_platform.unload.sqltext import RefusedError, plain

SCHEMAS = ("market", "sales")
CORPUS = Path(__file__).parent / "corpus"


def attacks() -> list[Any]:
    families: dict[str, list[str]] = yaml.safe_load((CORPUS / "attacks.yaml").read_text(encoding="utf-8"))
    return [pytest.param(sql, id=f"{name}-{n}") for name, sqls in families.items() for n, sql in enumerate(sqls)]


def legitimate() -> list[str]:
    return yaml.safe_load((CORPUS / "legitimate.yaml").read_text(encoding="utf-8"))


@pytest.mark.security
def test_both_corpora_are_as_large_as_promised() -> None:
    assert len(attacks()) >= 80
    assert len(legitimate()) >= 80
    assert len(set(legitimate())) == len(legitimate())


@pytest.mark.security
@pytest.mark.parametrize("sql", attacks())
def test_attack_is_refused(sql: str) -> None:
    with pytest.raises(RefusedError) as caught:
        guard(sql, SCHEMAS)
    position = caught.value.position
    assert position is None or 1 <= position <= len(sql)


@pytest.mark.unit
@pytest.mark.parametrize("sql", legitimate())
def test_query_of_an_analyst_is_admitted_as_it_was_written(sql: str) -> None:
    sent = guard(sql, SCHEMAS).sql
    assert len(sent) == len(sql)
    assert sent == sql or [i for i in range(len(sql)) if sql[i] != sent[i]] == [plain(sql).semicolon]


@pytest.mark.security
@pytest.mark.parametrize(
    ("sql", "part", "position"),
    [
        ("select a, pg_sleep(1) from market.flights", "pg_sleep", 11),
        ("select *\nfrom market.flights f\njoin secret.salaries s using (id)", "secret.salaries", 37),
        ("select 1; drop table x", "drop table x", 11),
        ("select a from market.flights limit 10", "10", 36),
        ("delete from market.flights", "delete", 1),
        ("select $$x$$", "$$x$$", 8),
    ],
)
def test_refusal_names_the_part_and_its_position(sql: str, part: str, position: int) -> None:
    with pytest.raises(RefusedError) as caught:
        guard(sql, SCHEMAS)
    assert (caught.value.part, caught.value.position) == (part, position)


@pytest.mark.security
def test_what_this_caller_alone_may_not_read_is_told_from_what_nobody_may() -> None:
    with pytest.raises(RefusedError) as other_schema:
        guard("select * from secret.t", SCHEMAS)
    with pytest.raises(RefusedError) as no_select:
        guard("drop table market.t", SCHEMAS)
    assert other_schema.value.forbidden
    assert not no_select.value.forbidden
    assert guard("select * from secret.t", ("secret",)).tables == ("secret.t",)


@pytest.mark.security
@pytest.mark.parametrize(
    "sql",
    [
        "select " + "(" * 5000 + "1" + ")" * 5000,
        "select * from " + "(select * from " * 2000 + "market.t" + ") x" * 2000,
        "select " + "not " * 20000 + "true",
        "select " + "- " * 40000 + "1",
        "select " + "case when true then " * 4000 + "1" + " end" * 4000,
        "select '" + "x" * MAX_SQL_CHARACTERS + "'",
        "select " + ", ".join(f"f{n}(1)" for n in range(10_000)),
        "/*" * 49_000,
        "select " + "a." * 40_000 + "a",
    ],
    ids=["parentheses", "subqueries", "not", "minus", "case", "long literal", "calls", "comments", "dots"],
)
def test_monstrous_text_is_refused_quickly(sql: str) -> None:
    started = time.process_time()
    with pytest.raises(RefusedError):
        guard(sql, SCHEMAS)
    assert time.process_time() - started < 5


@pytest.mark.unit
def test_wide_queries_are_no_monsters() -> None:
    columns = ", ".join(f"sum(case when c{n} > 0 then c{n} else 0 end) as s{n}" for n in range(300))
    assert len(guard(f"select {columns} from market.t", SCHEMAS).columns or ()) == 300


@pytest.mark.security
@given(st.text(max_size=200))
def test_arbitrary_text_is_decided_never_a_crash(text: str) -> None:
    try:
        admitted = guard(text, SCHEMAS)
    except RefusedError:
        return
    assert re.match(r"\s*(\(|select|with|/\*|--|table)", text, re.IGNORECASE), admitted


_PIECES = st.sampled_from(
    ["'", "''", "\\", "\\'", '"', "--", "\n", "\r", "/*", "*/", ";", "$$", "$", "(", ")", " ", "drop table x",
     "pg_sleep(1)", "secret.t", "x", "1", ",", "select ", " from ", " union ", "E", "é", "{#", "#}"]
)  # fmt: skip


@pytest.mark.security
@given(st.lists(_PIECES, max_size=12).map("".join))
def test_nothing_forbidden_passes_outside_of_literals_and_comments(tail: str) -> None:
    sql = f"select a from market.t where b = {tail}"
    try:
        guard(sql, SCHEMAS)
    except RefusedError:
        return
    code = re.sub(r"'[^']*'|\"[^\"]*\"", "''", plain(sql).text)
    assert ";" not in code
    assert not re.search(r"\bdrop table\b|pg_sleep\s*\(|from\s+secret\s*\.", code)


@pytest.mark.security
def test_parser_that_breaks_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlglot

    def broken(*_: object, **__: object) -> object:
        raise KeyError("bug")

    monkeypatch.setattr(sqlglot, "parse", broken)
    with pytest.raises(RefusedError, match="cannot be read"):
        guarding._guard.__wrapped__("select 1 as never_seen_before", frozenset(SCHEMAS))
