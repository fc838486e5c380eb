"""What the values of an entry may say together, and entries of each other. Pure; the form of a value is models.py's.

A rule names the fields it judges; it is left out where one of them was mended (validate.py), since nobody wrote that.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from data_platform.catalog.models import (
    SNAPSHOT_SUFFIX,
    Column,
    Dataset,
    Domain,
    Mode,
    NotNull,
    OtelLogsSource,
    Range,
    RedshiftSource,
    RowDrift,
    Service,
    Unique,
)
from data_platform.catalog.problems import Problem
from data_platform.catalog.validate import Draft, Mistake, nearest

# Databases of ClickHouse itself and of the platform's own tables.
RESERVED_DOMAINS = frozenset({"default", "system", "information_schema", "platform"})
# What the curation of OpenTelemetry logs writes; the catalogue decides types, order and comments.
OTEL_COLUMNS = (
    *("service_name", "event_time", "event_date", "event_name", "user_id", "session_id", "attributes"),
    *("trace_id", "record_uid", "source_object", "source_position"),
)


@dataclass(frozen=True)
class Rule:
    """One rule over one kind of entry; `judges` are the dotted fields it looks at."""

    entry: type[Any]
    judges: tuple[str, ...]
    check: Callable[[Any], Iterable[Mistake]]


_RULES: list[Rule] = []


def _rule(
    entry: type[Any], *judges: str
) -> Callable[[Callable[[Any], Iterable[Mistake]]], Callable[[Any], Iterable[Mistake]]]:
    def register(check: Callable[[Any], Iterable[Mistake]]) -> Callable[[Any], Iterable[Mistake]]:
        _RULES.append(Rule(entry, judges, check))
        return check

    return register


def problems(draft: Draft[Any]) -> list[Mistake]:
    """Mistakes within one entry."""
    return [
        mistake
        for rule in _RULES
        if isinstance(draft.model, rule.entry) and not _overlaps(rule.judges, draft.unsure)
        for mistake in rule.check(draft.model)
    ]


def _overlaps(judges: Iterable[str], unsure: frozenset[str]) -> bool:
    return any(
        judged == field or judged.startswith(f"{field}.") or field.startswith(f"{judged}.")
        for judged in judges
        for field in unsure
    )


@_rule(Dataset, "columns.name")
def _column_names(dataset: Dataset) -> Iterator[Mistake]:
    first: dict[str, int] = {}
    for position, column in enumerate(dataset.columns):
        if first.setdefault(column.name, position) != position:
            yield ("columns", position, "name"), f"'{column.name}' is columns[{first[column.name]}] already"


def _by_name(dataset: Dataset) -> dict[str, Column]:
    """The columns by name, of equal names the first: the other one is the mistake."""
    return {column.name: column for column in reversed(dataset.columns)}


# Three rules, so that a broken `nullable` does not hide a misspelt name.


@_rule(Dataset, "columns.name", "order_by")
def _order_names(dataset: Dataset) -> Iterator[Mistake]:
    columns = _by_name(dataset)
    for position, name in enumerate(dataset.order_by):
        if name not in columns:
            yield ("order_by", position), f"'{name}' is no column{nearest(name, list(columns))}"


@_rule(Dataset, "columns.name", "columns.nullable", "columns.type", "order_by")
def _order_fits(dataset: Dataset) -> Iterator[Mistake]:
    columns = _by_name(dataset)
    for position, name in enumerate(dataset.order_by):
        column = columns.get(name)
        if column is not None and column.nullable:
            yield ("order_by", position), f"'{name}' is nullable; a sorting key holds no null"
        elif column is not None and column.clickhouse_type.inner:
            yield ("order_by", position), f"'{name}' is a {column.clickhouse_type.name}, which has no order"


@_rule(Dataset, "order_by")
def _order_once(dataset: Dataset) -> Iterator[Mistake]:
    for position, name in enumerate(dataset.order_by):
        if name in dataset.order_by[:position]:
            yield ("order_by", position), f"'{name}' stands twice"


@_rule(Dataset, "partition_by")
def _partitioning(dataset: Dataset) -> Iterator[Mistake]:
    if dataset.partition_by != "_ds":
        reason = "an object of one day must be one partition, or its load is not atomic"
        yield ("partition_by",), f"must be _ds, not '{dataset.partition_by}': {reason}"


@_rule(Dataset, "mode", "source", "start", "end")
def _mode(dataset: Dataset) -> Iterator[Mistake]:
    source = dataset.source
    if dataset.mode is Mode.SNAPSHOT:
        if isinstance(source, OtelLogsSource):
            yield ("mode",), "events come day by day: mode must be daily"
        elif source.partition_column is not None:
            yield ("source", "partition_column"), "a snapshot is unloaded whole and has no partition column"
        for name in ("start", "end"):
            if getattr(dataset, name) is not None:
                yield (name,), f"a snapshot has no {name} day"
        return
    if isinstance(source, RedshiftSource) and source.partition_column is None:
        yield ("source", "partition_column"), "is missing: a daily dataset names the DATE column that cuts it into days"
    if dataset.start is None:
        yield ("start",), "is missing: a daily dataset names its first day"
    elif dataset.end is not None and dataset.end < dataset.start:
        yield ("end",), f"{dataset.end} is before the start, {dataset.start}"


@_rule(Dataset, "source")
def _source(dataset: Dataset) -> Iterator[Mistake]:
    source = dataset.source
    if not isinstance(source, RedshiftSource):
        return
    if (source.table is None) == (source.sql is None):
        both = "both are given" if source.table is not None else "neither is given"
        yield ("source",), f"names either a table or one SELECT (sql); {both}"
    for name in ("sql", "ready"):
        text = getattr(source, name)
        if text is not None and not text.strip():
            yield ("source", name), "is empty"


@_rule(Dataset, "source", "columns.name")
def _otel_columns(dataset: Dataset) -> Iterator[Mistake]:
    if not isinstance(dataset.source, OtelLogsSource):
        return
    for position, column in enumerate(dataset.columns):
        if column.name not in OTEL_COLUMNS:
            reason = f"curated events have no '{column.name}'{nearest(column.name, OTEL_COLUMNS)}"
            yield ("columns", position, "name"), reason
    missing = [name for name in OTEL_COLUMNS if name not in {column.name for column in dataset.columns}]
    if missing:
        yield ("columns",), f"curated events also have {', '.join(missing)}"


@_rule(Dataset, "checks", "columns.name")
def _checked_columns(dataset: Dataset) -> Iterator[Mistake]:
    known = _by_name(dataset)
    for position, check in enumerate(dataset.checks):
        match check:
            case NotNull() | Unique():
                named = [(("columns", index), name) for index, name in enumerate(check.columns)]
            case Range():
                named = [(("column",), check.column)]
            case RowDrift():
                named = []
        for path, name in named:
            if name not in known:
                yield ("checks", position, *path), f"'{name}' is no column{nearest(name, list(known))}"


@_rule(Dataset, "checks")
def _ranges(dataset: Dataset) -> Iterator[Mistake]:
    for position, check in enumerate(dataset.checks):
        if not isinstance(check, Range):
            continue
        if check.min is None and check.max is None:
            yield ("checks", position), "a range has a min, a max or both"
        elif check.min is not None and check.max is not None and check.max < check.min:
            yield ("checks", position, "max"), f"{check.max:g} is below the min, {check.min:g}"


@_rule(Dataset, "checks", "columns.name", "columns.type")
def _range_of_numbers(dataset: Dataset) -> Iterator[Mistake]:
    for position, check in enumerate(dataset.checks):
        column = _by_name(dataset).get(check.column) if isinstance(check, Range) else None
        if column is not None and column.clickhouse_type.family not in {"integer", "float", "decimal"}:
            reason = f"'{column.name}' is a {column.clickhouse_type.sql}; a range is for numbers"
            yield ("checks", position, "column"), reason


@_rule(Domain, "name")
def _domain_name(domain: Domain) -> Iterator[Mistake]:
    if domain.name in RESERVED_DOMAINS:
        yield ("name",), f"'{domain.name}' is a database of ClickHouse or of the platform itself"


@_rule(Domain, "batch")
def _batch(domain: Domain) -> Iterator[Mistake]:
    batch = domain.batch
    if batch.max < batch.min:
        yield ("batch", "max"), f"{batch.max} is below the min, {batch.min}"
    if batch.peak is not None and batch.peak < batch.max:
        yield ("batch", "peak"), f"{batch.peak} is below the max, {batch.max}"


@_rule(Service, "time_zone")
def _time_zone(service: Service) -> Iterator[Mistake]:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

    try:
        ZoneInfo(service.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        reason = f"unknown time zone '{service.time_zone}'{nearest(service.time_zone, sorted(available_timezones()))}"
        yield ("time_zone",), reason


@_rule(Service, "cohorts")
def _cohorts(service: Service) -> Iterator[Mistake]:
    ages = service.cohorts
    if not ages.recent < ages.active < ages.veteran:
        found = f"recent {ages.recent}, active {ages.active}, veteran {ages.veteran}"
        yield ("cohorts",), f"the ages must rise from recent over active to veteran; found {found}"


@_rule(Service, "conversion")
def _conversion(service: Service) -> Iterator[Mistake]:
    if service.conversion.view == service.conversion.cart:
        yield ("conversion", "cart"), f"'{service.conversion.cart}' is the name of the view step too"


def place_problems(draft: Draft[Dataset], path: PurePath, domains: Mapping[str, Domain]) -> Iterator[Mistake]:
    """Whether a dataset's file lies where its domain and name say: `path` is relative to `datasets/`."""
    dataset = draft.model
    if "domain" not in draft.unsure and dataset.domain not in domains:
        yield ("domain",), f"unknown domain '{dataset.domain}'{nearest(dataset.domain, list(domains))}"
    elif "domain" not in draft.unsure and path.parent.as_posix() != dataset.domain:
        yield ("domain",), f"is '{dataset.domain}', but the file lies in the folder datasets/{path.parent.as_posix()}"
    if "name" not in draft.unsure and path.name != f"{dataset.name}.yaml":
        yield ("name",), f"is '{dataset.name}', so the file must be called {dataset.name}.yaml"


def service_problems(services: Mapping[int, Service]) -> Iterator[Mistake]:
    """Services whose tables would have the same names; `services` are keyed by their position in the file."""
    first: dict[str, tuple[int, str]] = {}
    for position, service in services.items():
        other, name = first.setdefault(service.prefix, (position, service.name))
        if other != position:
            yield (position, "name"), f"'{service.name}' has the table prefix '{service.prefix}' of '{name}', [{other}]"


def catalog_problems(datasets: Mapping[str, tuple[str, Dataset]], services: Sequence[Service]) -> Iterator[Problem]:
    """Datasets whose table is somebody else's: a snapshot's storage, or a summary of a service, of whatever metric."""
    for file, dataset in datasets.values():
        if dataset.domain == "analytics" and dataset.name.endswith("_summary"):
            for service in services:
                if dataset.name.startswith(f"{service.prefix}_"):
                    yield Problem(file, "name", f"analytics.{dataset.name} is a summary table of {service.name}")
                    break
        whole, suffix, _ = dataset.name.rpartition(SNAPSHOT_SUFFIX)
        other = datasets.get(f"{dataset.domain}/{whole}")
        if suffix and other is not None and other[1].mode is Mode.SNAPSHOT:
            yield Problem(file, "name", f"{dataset.domain}.{dataset.name} stores the snapshots of {other[1].key}")
