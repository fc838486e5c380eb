"""One statement, executed: SELECT, CREATE TABLE AS, CREATE and DROP of tables and databases, SHOW TABLES.

A query has a DuckDB connection and a scratch folder of its own. It reads the objects' files in place, and what it
writes goes to S3 and Glue through their API, as any client's writes would.
"""

import io
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import duckdb
import pyarrow as pa
from sqlglot import exp

from data_platform.local.aws.athena.errors import QueryCancelled, QueryFailedError
from data_platform.local.aws.athena.tables import DataFile, Table, files_of, objects_below, split_url, table_called
from data_platform.local.aws.athena.translate import macros, parse, to_duckdb
from data_platform.local.aws.athena.values import duckdb_type, hive_type, result_type, text_of, trino_type

THREADS = 2
MEMORY = "1GB"
MOST_PARTITIONS = 100  # that one CTAS may write
PATH = "$path"
PARQUET = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"},
}


@dataclass(frozen=True)
class Scope:
    """What statements work with: S3 and Glue as clients see them, workgroups, where bytes of objects are."""

    client: Callable[[str], Any]  # a boto3 client of this engine's own endpoint
    workgroup: Callable[[str], Mapping[str, Any]]  # the configuration; raises RequestError
    blob: Callable[[str], Path]


@dataclass
class Answer:
    """What came out: columns with Athena's types, rows of text (the first the column names, for a SELECT)."""

    columns: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    rows: list[Sequence[str | None]] = field(default_factory=list[Sequence[str | None]])
    scanned: int = 0
    output: str = ""
    manifest: str = ""


@dataclass(frozen=True)
class Output:
    """Where a CTAS writes."""

    database: str
    name: str
    location: str
    keys: list[str]
    compression: str


class Runner:
    """Runs one statement; `interrupt` may come from another thread."""

    def __init__(self, scope: Scope, database: str, location: str, query_id: str, scan_limit: int | None) -> None:
        self.scanned = 0
        self._scope = scope
        self._database = database
        self._location = location
        self._id = query_id
        self._limit = scan_limit
        self._folder = Path(tempfile.mkdtemp(prefix="athena-"))
        self._connection = duckdb.connect(
            config={"threads": THREADS, "memory_limit": MEMORY, "temp_directory": str(self._folder / "spill")}
        )
        self._connection.execute(
            "SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET preserve_insertion_order = false"
        )
        for macro in macros():
            self._connection.execute(macro)
        self._stopped = threading.Event()

    def interrupt(self) -> None:
        """Stop what DuckDB does."""
        self._connection.interrupt()

    def close(self) -> None:
        """Give everything back."""
        self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, sql: str, parameters: Sequence[str], stopped: threading.Event) -> Answer:
        """Execute the statement. Raises QueryFailedError, QueryCancelled."""
        self._stopped = stopped
        text = sql.strip().rstrip(";")
        shown = re.fullmatch(r"(?i)SHOW\s+(TABLES|DATABASES|SCHEMAS)(?:\s+(?:IN|FROM)\s+([\w`\"]+))?", text)
        if shown is not None:
            return self._show(shown[1].upper(), shown[2])
        parsed = parse(text)
        _fill_in(parsed, parameters)
        match parsed:
            case exp.Create():
                return self._create(parsed)
            case exp.Drop():
                return self._drop(parsed)
            case exp.Query():
                return self._select(parsed)
            case _:
                raise QueryFailedError("NOT_SUPPORTED", f"{type(parsed).__name__} is not supported here")

    # Reading

    def _select(self, query: exp.Expr) -> Answer:
        select, columns = self._typed(self._prepared(query))
        names = [name for name, _ in columns]
        rows = [tuple(text_of(value) for value in row) for row in self._connection.execute(select).fetchall()]
        self._check()
        url = f"{self._location}{self._id}.csv"
        self._put(url, _csv([names, *rows]))
        self._put(f"{url}.metadata", b"")
        return Answer([(name, result_type(kind)) for name, kind in columns], [names, *rows], output=url)

    def _prepared(self, query: exp.Expr) -> str:
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
        self._check()
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
            casts = ", ".join(f"CAST({_quoted(n)} AS {duckdb_type(types[n])}) AS {_quoted(n)}" for n in names)
            where = " AND ".join(f"({each.sql('duckdb')})" for each in conditions) or "true"
            rows = self._connection.execute(
                f"SELECT number FROM (SELECT number, {_quoted(PATH)}{', ' + casts if casts else ''} FROM listed) "
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
        target = f"{_quoted(table.database)}.{_quoted(table.name)}"
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(table.database)}")
        declared = {name: duckdb_type(kind) for name, kind in table.columns}
        keys = {name: duckdb_type(kind) for name, kind in table.keys}
        if not files:
            nothing = {**declared, **keys, PATH: "VARCHAR"}
            columns = ", ".join(f"CAST(NULL AS {kind}) AS {_quoted(name)}" for name, kind in nothing.items())
            self._connection.execute(f"CREATE OR REPLACE VIEW {target} AS SELECT {columns} WHERE false")
            return
        paths = self._linked(table, files, with_url=PATH in used)
        listed = "[" + ", ".join(_literal(path) for path in paths) + "]"
        hive = {**keys, **({"__path": "VARCHAR"} if PATH in used else {})}
        types = ", ".join(f"{_literal(name)}: {kind}" for name, kind in hive.items())
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
        columns = [f"{_converted(name, kind, held.get(name))} AS {_quoted(name)}" for name, kind in declared.items()]
        columns += [_quoted(name) for name in keys]
        columns.append(f"{'__path' if PATH in used else 'NULL'} AS {_quoted(PATH)}")
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
            link.symlink_to(self._scope.blob(file.blob))
            paths.append(str(link))
        return paths

    def _typed(self, sql: str) -> tuple[str, list[tuple[str, str]]]:
        """The query with Athena's column names and types it can write: unnamed columns are _col0, _col1, ..."""
        described = self._connection.execute(f"DESCRIBE {sql}").fetchall()
        columns: list[tuple[str, str]] = []
        for number, row in enumerate(described):
            given = re.fullmatch(r"[A-Za-z_$][\w$ .-]*", str(row[0])) and not re.fullmatch(r"_col_\d+", str(row[0]))
            name = str(row[0]).lower() if given else f"_col{number}"
            columns.append((name, "BIGINT" if str(row[1]) == "HUGEINT" else str(row[1])))
        picked = ", ".join(
            f"CAST(#{number} AS {kind}) AS {_quoted(name)}"
            if str(row[1]) == "HUGEINT"
            else f"#{number} AS {_quoted(name)}"
            for number, ((name, kind), row) in enumerate(zip(columns, described, strict=True), start=1)
        )
        return f"SELECT {picked} FROM ({sql})", columns

    # Writing

    def _create(self, created: exp.Create) -> Answer:
        kind = str(created.args["kind"]).upper()
        if kind in {"SCHEMA", "DATABASE"}:
            node = created.find(exp.Table)
            name = ((node.name or node.db) if node is not None else "").lower()
            self._glue(
                "create_database",
                "SCHEMA_ALREADY_EXISTS",
                ignore=bool(created.args.get("exists")),
                DatabaseInput={"Name": name},
            )
            return Answer()
        node = created.find(exp.Table)
        if kind != "TABLE" or node is None:
            raise QueryFailedError("NOT_SUPPORTED", f"CREATE {kind} is not supported by the embedded Athena")
        if created.expression is None:
            return self._create_external(created, node)
        output = self._output(created, node)
        if table_called(output.database, output.name) is not None:
            if created.args.get("exists"):
                return Answer()
            raise QueryFailedError(
                "TABLE_ALREADY_EXISTS",
                f"line 1:1: Destination table 'awsdatacatalog.{output.database}.{output.name}' already exists",
            )
        if next(iter(objects_below(output.location)), None) is not None:
            raise QueryFailedError(
                "HIVE_PATH_ALREADY_EXISTS",
                f"Target directory for table '{output.database}.{output.name}' already exists: {output.location}. You "
                "may need to clean the data at location manually before retrying. Athena will not delete your data.",
            )
        select, columns = self._typed(self._prepared(created.expression))
        self._check_columns(columns, output)
        keys = self._write(select, output)
        self._check()
        self._register(output, columns, keys)
        return self._manifest(output.location, keys)

    def _output(self, created: exp.Create, node: exp.Table) -> Output:
        options: dict[str, str] = {}
        keys: list[str] = []
        properties = created.args.get("properties")
        for each in properties.expressions if properties is not None else ():
            match each:
                case exp.PartitionedByProperty():
                    keys = [part.name.lower() for part in each.this.expressions]
                case exp.LocationProperty():
                    options["external_location"] = each.this.name
                case exp.FileFormatProperty():
                    options["format"] = each.this.name
                case exp.Property():
                    options[str(each.this.name).lower()] = str(each.args["value"].name)
                case _:
                    pass
        if options.get("format", "PARQUET").upper() != "PARQUET":
            raise QueryFailedError("NOT_SUPPORTED", f"format {options['format']} is not supported here")
        location = options.get("external_location") or f"{self._location}tables/{self._id}/"
        compression = options.get("write_compression") or options.get("parquet_compression") or "gzip"
        database = (node.db or self._database).lower()
        return Output(database, node.name.lower(), f"{location.rstrip('/')}/", keys, compression.lower())

    def _check_columns(self, columns: Sequence[tuple[str, str]], output: Output) -> None:
        names = [name for name, _ in columns]
        if len(set(names)) != len(names):
            raise QueryFailedError("DUPLICATE_COLUMN_NAME", "line 1:1: Column name specified more than once")
        if any(name.startswith("_col") for name in names):
            raise QueryFailedError("MISSING_COLUMN_NAME", "line 1:1: Column name not specified")
        for name, kind in columns:
            if "ZONE" in kind or "TZ" in kind:
                raise QueryFailedError("NOT_SUPPORTED", f"Unsupported Hive type: timestamp with time zone ({name})")
        if output.keys and names[-len(output.keys) :] != output.keys:
            raise QueryFailedError(
                "HIVE_COLUMN_ORDER_MISMATCH",
                "Partition keys must be the last columns in the table and in the same order as the table properties: "
                f"{output.keys}",
            )

    def _write(self, select: str, output: Output) -> list[str]:
        """Write the rows and put the files; returns their keys. Nothing is written for no rows."""
        folder = self._folder / "written"
        self._connection.execute(f"CREATE TEMP TABLE written AS {select}")
        rows = int((self._connection.execute("SELECT count(*) FROM written").fetchone() or (0,))[0])
        if not rows:
            return []
        options = f"FORMAT parquet, COMPRESSION {output.compression}"
        tag = f"{self._id[:8]}_{uuid.uuid4().hex[:12]}"
        if output.keys:
            names = ", ".join(_quoted(key) for key in output.keys)
            found = self._connection.execute(f"SELECT count(*) FROM (SELECT DISTINCT {names} FROM written)").fetchone()
            if found is not None and int(found[0]) > MOST_PARTITIONS:
                raise QueryFailedError(
                    "HIVE_TOO_MANY_OPEN_PARTITIONS",
                    f"Exceeded limit of {MOST_PARTITIONS} open writers for partitions/buckets.",
                )
            options += f", PARTITION_BY ({names}), FILENAME_PATTERN '{tag}_{{i}}'"
            self._connection.execute(f"COPY written TO {_literal(str(folder))} ({options})")
        else:
            folder.mkdir()
            self._connection.execute(f"COPY written TO {_literal(str(folder / tag))} ({options})")
        self._check()
        keys: list[str] = []
        _, prefix = split_url(output.location)
        bucket, _ = split_url(output.location)
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            key = f"{prefix}{path.relative_to(folder).as_posix().removesuffix('.parquet')}"
            self._put(f"s3://{bucket}/{key}", path.read_bytes())
            keys.append(key)
        return keys

    def _register(self, output: Output, columns: Sequence[tuple[str, str]], keys: Sequence[str]) -> None:
        def described(some: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
            return [{"Name": name, "Type": hive_type(kind)} for name, kind in some]

        storage = {
            **PARQUET,
            "Columns": described(each for each in columns if each[0] not in output.keys),
            "Location": output.location,
        }
        self._glue(
            "create_table",
            "TABLE_ALREADY_EXISTS",
            DatabaseName=output.database,
            TableInput={
                "Name": output.name,
                "TableType": "EXTERNAL_TABLE",
                "Parameters": {"EXTERNAL": "TRUE", "classification": "parquet"},
                "PartitionKeys": described(each for each in columns if each[0] in output.keys),
                "StorageDescriptor": storage,
            },
        )
        if not output.keys:
            return
        bucket, prefix = split_url(output.location)
        places = sorted({key.removeprefix(prefix).rpartition("/")[0] for key in keys})
        for place in places:
            values = [unquote(part.partition("=")[2]) for part in place.split("/")]
            self._glue(
                "create_partition",
                "PARTITION_ALREADY_EXISTS",
                DatabaseName=output.database,
                TableName=output.name,
                PartitionInput={
                    "Values": values,
                    "StorageDescriptor": {**storage, "Location": f"s3://{bucket}/{prefix}{place}/"},
                },
            )

    def _manifest(self, location: str, keys: Sequence[str]) -> Answer:
        bucket, _ = split_url(location)
        base = f"{self._location}tables/{self._id}"
        self._put(f"{base}-manifest.csv", "".join(f"s3://{bucket}/{key}\n" for key in keys).encode())
        self._put(f"{base}.metadata", b"")
        return Answer([("rows", "bigint")], [], output=base, manifest=f"{base}-manifest.csv")

    def _create_external(self, created: exp.Create, node: exp.Table) -> Answer:
        columns = [_defined(each) for each in created.this.expressions if isinstance(each, exp.ColumnDef)]
        keys: list[dict[str, str]] = []
        location, parameters = "", dict[str, str]()
        properties = created.args.get("properties")
        for each in properties.expressions if properties is not None else ():
            match each:
                case exp.PartitionedByProperty() if isinstance(each.this, exp.Schema):
                    keys = [_defined(part) for part in each.this.expressions]
                case exp.LocationProperty():
                    location = each.this.name
                case exp.Property() if type(each) is exp.Property:
                    parameters[str(each.this.name)] = str(each.args["value"].name)
                case _:
                    pass
        self._glue(
            "create_table",
            "TABLE_ALREADY_EXISTS",
            ignore=bool(created.args.get("exists")),
            DatabaseName=(node.db or self._database).lower(),
            TableInput={
                "Name": node.name.lower(),
                "TableType": "EXTERNAL_TABLE",
                "Parameters": {"EXTERNAL": "TRUE", **parameters},
                "PartitionKeys": keys,
                "StorageDescriptor": {**PARQUET, "Columns": columns, "Location": location},
            },
        )
        return Answer()

    def _drop(self, dropped: exp.Drop) -> Answer:
        node = dropped.find(exp.Table)
        exists = bool(dropped.args.get("exists"))
        if node is None:
            raise QueryFailedError("SYNTAX_ERROR", "DROP of nothing")
        if str(dropped.args["kind"]).upper() in {"SCHEMA", "DATABASE"}:
            self._glue("delete_database", "SCHEMA_NOT_FOUND", ignore=exists, Name=(node.name or node.db).lower())
        else:
            self._glue(
                "delete_table", "TABLE_NOT_FOUND", ignore=exists,
                DatabaseName=(node.db or self._database).lower(), Name=node.name.lower(),
            )  # fmt: skip
        return Answer()

    def _show(self, what: str, of: str | None) -> Answer:
        glue = self._scope.client("glue")
        if what == "TABLES":
            tables = glue.get_tables(DatabaseName=(of or self._database).strip('`"').lower())["TableList"]
            return Answer([("tab_name", "string")], [(str(each["Name"]),) for each in tables])
        databases = glue.get_databases()["DatabaseList"]
        return Answer([("database_name", "string")], [(str(each["Name"]),) for each in databases])

    # The rest

    def _glue(self, call: str, code: str, *, ignore: bool = False, **request: Any) -> None:
        from botocore.exceptions import ClientError

        try:
            getattr(self._scope.client("glue"), call)(**request)
        except ClientError as error:
            if not ignore:
                raise QueryFailedError(code, str(error.response.get("Error", {}).get("Message", error))) from None

    def _put(self, url: str, body: bytes) -> None:
        bucket, key = split_url(url)
        self._scope.client("s3").put_object(Bucket=bucket, Key=key, Body=body)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise QueryCancelled


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
        return f"epoch_ns({_quoted(name)})"
    return f"CAST({_quoted(name)} AS {kind})"


def _fill_in(parsed: exp.Expr, parameters: Sequence[str]) -> None:
    placeholders = list(parsed.find_all(exp.Placeholder))
    if len(placeholders) != len(parameters):
        raise QueryFailedError(
            "INVALID_PARAMETER_USAGE",
            f"line 1:1: Incorrect number of parameters: expected {len(placeholders)} but found {len(parameters)}",
        )
    for place, value in zip(placeholders, parameters, strict=True):
        place.replace(parse(f"SELECT {value}").expressions[0])


def _defined(column: exp.Expr) -> dict[str, str]:
    kind = column.args["kind"].sql("hive").lower().replace(", ", ",").replace(": ", ":")
    return {"Name": column.name.lower(), "Type": kind}


def _csv(rows: Iterable[Sequence[str | None]]) -> bytes:
    """Every value quoted, null as nothing: so it differs from the empty text."""
    text = io.StringIO()
    for row in rows:
        text.write(",".join("" if value is None else '"' + value.replace('"', '""') + '"' for value in row) + "\n")
    return text.getvalue().encode()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
