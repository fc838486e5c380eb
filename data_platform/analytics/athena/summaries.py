"""The summary tables on Athena: each a CTAS into a place of its own, swapped in, and put under the summary prefix."""

import hashlib
import io
import time
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from data_platform.analytics.athena import layout
from data_platform.analytics.athena.blocks import Work, create_table_as, objects_below, temporary_table
from data_platform.analytics.athena.state import Published
from data_platform.analytics.athena.transpile import metric_on_athena
from data_platform.analytics.export import export_prefix, put_export
from data_platform.analytics.metrics import metric_called, table_of
from data_platform.clients.athena import Execution, cost_usd

if TYPE_CHECKING:
    import pyarrow as pa

_ARROW = {"bigint": "int64", "double": "float64", "string": "string", "date": "date32", "int": "int32"}


@dataclass(frozen=True)
class AthenaSummary:
    """A table as it is now, and what it took; `url` is its Parquet under the summary prefix."""

    metric: str
    published: Published
    url: str
    bytes: int
    seconds: float
    bytes_scanned: int
    usd: float
    computed: bool


@dataclass(frozen=True)
class Prepared:
    """A table ready to be swapped in; `execution` is None where what is published needs no change."""

    published: Published
    rows: "pa.Table"
    execution: Execution | None


def metric_statement(work: Work, metric: str, execution_date: date) -> str:
    """The metric's SELECT as it is sent: blocks of this service with their filters, literals, without `service`."""
    import sqlglot
    from sqlglot import exp

    days = work.state.days
    first, last = (days[0], days[-1]) if days else (work.min_data_date(), work.min_data_date())
    query: Any = sqlglot.parse_one(metric_on_athena(metric, work.service), read="athena")
    query.set("expressions", [each for each in query.expressions if each.alias_or_name != "service"])
    for table in list(query.find_all(exp.Table)):
        if table.db == "analytics_blocks":
            source = layout.block_source(work.database, table.name, work.service, first, last, work.min_data_date())
            block: Any = sqlglot.parse_one(source, read="athena")
            table.replace(
                exp.Subquery(this=block.this, alias=exp.TableAlias(this=exp.to_identifier(table.alias_or_name)))
            )
    for placeholder in list(query.find_all(exp.Placeholder)):
        filled = _filled(placeholder, work, first, last, execution_date)
        holder = placeholder.parent
        (holder if isinstance(holder, exp.In) else placeholder).replace(filled)
    return query.sql("athena", pretty=True)


def _filled(placeholder: Any, work: Work, first: date, last: date, execution_date: date) -> Any:
    import sqlglot

    match placeholder.name:
        case "execution_date":
            return sqlglot.parse_one(layout.day(execution_date), read="athena")
        case "services":
            text = f"{placeholder.parent.this.sql('athena')} IN ({layout.text(work.service.name)})"
        case "days":
            text = f"{placeholder.parent.this.sql('athena')} BETWEEN {layout.day(first)} AND {layout.day(last)}"
        case _:
            raise AssertionError(placeholder.name)
    return sqlglot.parse_one(text, read="athena")


def prepare_summary(work: Work, metric: str, execution_date: date, *, full: bool) -> Prepared:
    """Run the metric's CTAS where anything differs from what is published; nothing is swapped yet."""
    chosen = metric_called(metric)
    sql = metric_statement(work, metric, execution_date)
    fingerprint = hashlib.sha256(f"{work.state.generation} {sql}".encode()).hexdigest()
    known = work.state.tables.get(metric)
    if known is not None and known.fingerprint == fingerprint and not full:
        return Prepared(known, read_rows(work, known), None)
    sequence = 1 if known is None else known.sequence + 1
    key = f"{work.service.name} {metric} s{sequence} {fingerprint}"
    location, execution = create_table_as(
        work, sql, key, lambda run: work.places.table(metric, f"s{sequence}_{run}"), drop=False
    )
    run = location.rstrip("/").rpartition(f"/s{sequence}_")[2]
    columns = tuple(work.glue.columns(temporary_table(work.service, run)))
    made = Published(
        fingerprint=fingerprint,
        location=location,
        sequence=sequence,
        generation=work.state.generation,
        execution_date=execution_date,
        columns=columns,
        rows=0,
        first_day=None,
        last_day=None,
    )
    rows = read_rows(work, made)
    days: list[date] = rows.column(chosen.day).to_pylist()
    update = {"rows": rows.num_rows, "first_day": min(days, default=None), "last_day": max(days, default=None)}
    return Prepared(made.model_copy(update=update), rows, execution)


def publish_summary(work: Work, metric: str, prepared: Prepared, began: float) -> AthenaSummary:
    """Point the table to its new data and replace the object under the summary prefix."""
    published, execution = prepared.published, prepared.execution
    work.lease.check()
    chosen = metric_called(metric)
    if execution is not None:
        description = f"{metric} of {work.service.name}: {chosen.description}"
        work.glue.put_table(table_of(work.service, metric), published.columns, published.location, description)
    bucket, prefix = layout.split_url(work.places.output)
    url, size = put_export(
        work.s3, bucket, f"{prefix}/{export_prefix(work.service, metric)}".lstrip("/"), metric, prepared.rows
    )
    work.commit(work.state.model_copy(update={"tables": {**work.state.tables, metric: published}}))
    if execution is not None:
        run = published.location.rstrip("/").rpartition(f"/s{published.sequence}_")[2]
        work.glue.drop_table(temporary_table(work.service, run))
    scanned = 0 if execution is None else execution.bytes_scanned
    return AthenaSummary(
        metric,
        published,
        url,
        size,
        time.monotonic() - began,
        scanned,
        cost_usd(scanned, work.athena.meter.usd_per_tb),
        execution is not None,
    )


def read_rows(work: Work, published: Published) -> "pa.Table":
    """The rows of a table as its data lies on S3, sorted as the table's rows are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, _ARROW[kind]) for name, kind in published.columns])
    parts: list[pa.Table] = []
    for written in objects_below(work.s3, published.location):
        bucket, key = layout.split_url(written.url)
        body = work.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        parts.append(pq.read_table(io.BytesIO(body)).select(schema.names).cast(schema))
    rows = pa.concat_tables(parts) if parts else schema.empty_table()
    first = published.columns[0][0]
    order = [(name, "ascending") for name in (first, "cohort", "event_name") if name in schema.names]
    return rows.sort_by(list(dict.fromkeys(order)))
