"""SQL of the catalogue: is it exactly one SELECT that Redshift would read? Imports sqlglot, so only checks call it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from data_platform.catalog.models import Dataset, RedshiftSource
from data_platform.catalog.validate import Mistake

if TYPE_CHECKING:
    from sqlglot import exp


def problems(dataset: Dataset) -> Iterator[Mistake]:
    """Mistakes in the dataset's SQL: source, and readiness condition (which may say `:day`)."""
    source = dataset.source
    if not isinstance(source, RedshiftSource):
        return
    for name, parameters in (("sql", False), ("ready", True)):
        text: str | None = getattr(source, name)
        if text is None or not text.strip():
            continue
        reason = select_problem(text, parameters=parameters)
        if reason is not None:
            yield ("source", name), reason


def select_problem(text: str, *, parameters: bool = False) -> str | None:
    """Why `text` is not exactly one SELECT in Redshift's dialect; None where it is.

    With `parameters`, `:day` is the only placeholder and one value must be selected.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import ParseError, SqlglotError

    try:
        parsed = [each for each in sqlglot.parse(text, dialect="redshift") if each is not None]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        where = f"line {first.get('line')}, column {first.get('col')}: " if first else ""
        return f"is no SQL that Redshift reads: {where}{first.get('description') or error}"
    except SqlglotError as error:  # the tokenizer's own
        return f"is no SQL that Redshift reads: {error}"
    statement = parsed[0] if len(parsed) == 1 else None
    if not isinstance(statement, exp.Query):
        found = f"{len(parsed)} statements" if statement is None else statement.key.upper()
        return f"must be exactly one SELECT, found {found}"
    return _writing(statement) or _parameters(statement, ready=parameters)


def _writing(statement: "exp.Query") -> str | None:
    from sqlglot import exp

    for node in statement.find_all(exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Into, exp.Command):
        return f"must only read, found {node.key.upper()}"
    return None


def _parameters(statement: "exp.Query", *, ready: bool) -> str | None:
    from sqlglot import exp

    names = {str(node.name) for node in statement.find_all(exp.Placeholder, exp.Parameter)}
    unknown = sorted(names - ({"day"} if ready else set[str]()))
    if unknown:
        allowed = "only :day is known here" if ready else "a source takes none"
        return f"has the parameter :{unknown[0]}; {allowed}"
    if ready and len(statement.selects) != 1:
        return f"must select one boolean, found {len(statement.selects)} columns"
    return None
