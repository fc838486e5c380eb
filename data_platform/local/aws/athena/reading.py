"""What a query reads: the Glue tables it names, as DuckDB views over the files that its conditions leave.

Bytes scanned are those of the columns read in these files, as Athena counts them.
"""

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import duckdb
import pyarrow as pa
from sqlglot import exp

from data_platform.local.aws.athena.errors import QueryFailedError
from data_platform.local.aws.athena.tables import DataFile, Table, files_of, table_called
from data_platform.local.aws.athena.translate import to_duckdb
from data_platform.local.aws.athena.values import duckdb_type, trino_type

PATH = "$path"


class Reader:
    """The tables of one query, in its own DuckDB connection; `folder` is its scratch folder."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        database: str,
        blob: Callable[[str], Path],
        folder: Path,
        scan_limit: int | None,
    ) -> None:
        self.scanned = 0
        self._connection = connection
        self._database = database
        self._blob = blob
        self._folder = folder
        self._limit = scan_limit

    def prepared(self, query: exp.Expr) -> str:
        """The query in DuckDB's words, its tables made views over the files it has to read."""
        tables = self._tables_of(query)
        schema: dict[str, dict[str, dict[str, str]]] = {}
        for table in tables.values():
            types = {name: trino_type(kind) for name, kind in (*table.columns, *table.keys)}
            schema.setdefault(table.database, {})[table.name] = {**types, PATH: "varchar"}
        qualified, sql = to_duckdb(query, schema)
        for (database, name), table in tables.items():
            references = [
                each
                for each in qualified.find_all(exp.Table)
                if (each.db.lower(), each.name.lower()) == (database, name)
            ]
            used = {column.name.lower() for column in qualified.find_all(exp.Column)}
            files = self._pruned(table, references)
            self._view(table, files, used)
        if self._limit is not None and self.scanned > self._limit:
            raise QueryFailedError("GENERIC_USER_ERROR", "Query cancelled! : Bytes scanned limit was exceeded")
        return sql

    def _tables_of(self, query: exp.Expr) -> dict[tuple[str, str], Table]:
        """The Glue tables the query reads; names in it become complete and lower case."""
        ctes = {cte.alias_or_name.lower() for cte in query.find_all(exp.CTE)}
        found: dict[tuple[str, str], Table] = {}
        for node in query.find_all(exp.Table):
            name = node.name.lower()
            if not name or (not node.db and name in ctes):
                continue
            database = (node.db or self._database).lower()
            table = table_called(database, name)
            if table is None:
                raise QueryFailedError(
                    "TABLE_NOT_FOUND", f"line 1:1: Table 'awsdatacatalog.{database}.{name}' does not exist"
                )
            node.set("db", exp.to_identifier(database))
            node.set("catalog", None)
            node.set("this", exp.to_identifier(name))
            found[database, name] = table
        return found

    def _pruned(self, table: Table, references: Sequence[exp.Expr]) -> list[DataFile]:
        """The files that any of the references may need, by the conditions on partition keys and path beside each."""
        files = list(files_of(table))
        if not files:
            return []
        names = [name for name, _ in table.keys]
        wanted: set[int] = set()
        self._list(files, names)
        types = dict(table.keys)
        for reference in references:
            conditions = list(_conditions(reference, {*names, PATH}))
            injected = [n for n in names if table.parameters.get(f"projection.{n}.type", "").lower() == "injected"]
            for name in injected:
                if not any(isinstance(each, exp.EQ | exp.In) and each.this.name == name for each in conditions):
                    raise QueryFailedError(
                        "CONSTRAINT_VIOLATION",
                        f"For the injected projected partition column {name}, the WHERE clause must contain only "
                        "static equality conditions, and at least one such condition must be present.",
                    )
            casts = ", ".join(f"CAST({quoted(n)} AS {duckdb_type(types[n])}) AS {quoted(n)}" for n in names)
            where = " AND ".join(f"({each.sql('duckdb')})" for each in conditions) or "true"
            rows = self._connection.execute(
                f"SELECT number FROM (SELECT number, {quoted(PATH)}{', ' + casts if casts else ''} FROM listed) "
                f"WHERE {where}"
            ).fetchall()
            wanted |= {int(row[0]) for row in rows}
        return [files[number] for number in sorted(wanted)]

    def _list(self, files: Sequence[DataFile], names: Sequence[str]) -> None:
        table = pa.table(
            {
                "number": pa.array(range(len(files)), pa.int64()),
                PATH: [file.url for file in files],
                **{name: [file.partition[place] for file in files] for place, name in enumerate(names)},
            }
        )
        self._connection.register("listed_arrow", table)
        self._connection.execute("CREATE OR REPLACE TEMP TABLE listed AS SELECT * FROM listed_arrow")

    def _view(self, table: Table, files: Sequence[DataFile], used: set[str]) -> None:
        target = f"{quoted(table.database)}.{quoted(table.name)}"
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(table.database)}")
        declared = {name: duckdb_type(kind) for name, kind in table.columns}
        keys = {name: duckdb_type(kind) for name, kind in table.keys}
        if not files:
            nothing = {**declared, **keys, PATH: "VARCHAR"}
            columns = ", ".join(f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in nothing.items())
            self._connection.execute(f"CREATE OR REPLACE VIEW {target} AS SELECT {columns} WHERE false")
            return
        paths = self._linked(table, files, with_url=PATH in used)
        listed = "[" + ", ".join(literal(path) for path in paths) + "]"
        hive = {**keys, **({"__path": "VARCHAR"} if PATH in used else {})}
        types = ", ".join(f"{literal(name)}: {kind}" for name, kind in hive.items())
        partitions = f", hive_partitioning = true, hive_types = {{{types}}}" if hive else ", hive_partitioning = false"
        source = f"read_parquet({listed}, union_by_name = true{partitions})"
        try:
            sizes = dict(
                self._connection.execute(
                    "SELECT lower(split_part(path_in_schema, ', ', 1)) AS name, sum(total_compressed_size) "
                    f"FROM parquet_metadata({listed}) GROUP BY name"
                ).fetchall()
            )
            held = {
                str(row[0]).lower(): str(row[1])
                for row in self._connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
            }
        except duckdb.Error as error:
            raise QueryFailedError("HIVE_BAD_DATA", str(error).splitlines()[0][:300]) from None
        self.scanned += int(sum(size for name, size in sizes.items() if name in used))
        columns = [f"{_converted(name, kind, held.get(name))} AS {quoted(name)}" for name, kind in declared.items()]
        columns += [quoted(name) for name in keys]
        columns.append(f"{'__path' if PATH in used else 'NULL'} AS {quoted(PATH)}")
        self._connection.execute(f"CREATE OR REPLACE VIEW {target} AS SELECT {', '.join(columns)} FROM {source}")

    def _linked(self, table: Table, files: Sequence[DataFile], *, with_url: bool) -> list[str]:
        """The files under paths that tell their partition, as links: DuckDB reads the values from the path."""
        root = self._folder / uuid.uuid4().hex
        paths: list[str] = []
        for number, file in enumerate(files):
            folder = root
            for (name, _), value in zip(table.keys, file.partition, strict=True):
                folder = folder / f"{name}={quote(value, safe='')}"
            if with_url:
                folder = folder / f"__path={quote(file.url, safe='')}"
            folder.mkdir(parents=True, exist_ok=True)
            link = folder / f"{number}.parquet"
            link.symlink_to(self._blob(file.blob))
            paths.append(str(link))
        return paths

    def typed(self, sql: str) -> tuple[str, list[tuple[str, str]]]:
        """The query with Athena's column names and types it can write: unnamed columns are _col0, _col1, ..."""
        described = self._connection.execute(f"DESCRIBE {sql}").fetchall()
        columns: list[tuple[str, str]] = []
        for number, row in enumerate(described):
            given = re.fullmatch(r"[A-Za-z_$][\w$ .-]*", str(row[0])) and not re.fullmatch(r"_col_\d+", str(row[0]))
            name = str(row[0]).lower() if given else f"_col{number}"
            columns.append((name, "BIGINT" if str(row[1]) == "HUGEINT" else str(row[1])))
        picked = ", ".join(
            f"CAST(#{number} AS {kind}) AS {quoted(name)}"
            if str(row[1]) == "HUGEINT"
            else f"#{number} AS {quoted(name)}"
            for number, ((name, kind), row) in enumerate(zip(columns, described, strict=True), start=1)
        )
        return f"SELECT {picked} FROM ({sql})", columns


def _conditions(reference: exp.Expr, names: set[str]) -> Iterator[exp.Expr]:
    """The conditions beside a table that concern nothing but its partition keys and path, without qualifiers."""
    select = reference.find_ancestor(exp.Select)
    where = None if select is None else select.args.get("where")
    if where is None:
        return
    parts = list(where.this.flatten()) if isinstance(where.this, exp.And) else [where.this]
    alias = reference.alias_or_name.lower()
    for part in parts:
        columns = list(part.find_all(exp.Column))
        mine = columns and all(each.name.lower() in names and each.table.lower() in {"", alias} for each in columns)
        if mine and not part.find(exp.Query):
            plain = part.unnest().copy()
            for each in plain.find_all(exp.Column):
                each.set("table", None)
                each.this.set("quoted", True)
            yield plain


def _converted(name: str, kind: str, held: str | None) -> str:
    """A column of the file as the declared type: a bigint over a timestamp is its number, nanoseconds here."""
    if held is None:
        return f"CAST(NULL AS {kind})"
    if kind == "BIGINT" and held.startswith("TIMESTAMP"):
        return f"epoch_ns({quoted(name)})"
    return f"CAST({quoted(name)} AS {kind})"


def quoted(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text literal."""
    return "'" + text.replace("'", "''") + "'"
