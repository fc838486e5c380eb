"""One statement, executed: SELECT, CREATE TABLE AS, CREATE and DROP of tables and databases, SHOW TABLES.

A query has a DuckDB connection and a scratch folder of its own. It reads the objects' files in place, and what it
writes goes to S3 and Glue through their API, as any client's writes would.
"""

import contextlib
import io
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
from sqlglot import exp

from data_platform.local.aws.athena.errors import QueryCancelled, QueryFailedError
from data_platform.local.aws.athena.reading import Reader, literal, quoted
from data_platform.local.aws.athena.tables import objects_below, split_url, table_called
from data_platform.local.aws.athena.translate import macros, parse
from data_platform.local.aws.athena.values import hive_type, result_type, text_of

THREADS = 2
MEMORY = "1GB"
MOST_PARTITIONS = 100  # that one CTAS may write
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
        self._scope = scope
        self._database = database
        self._location = location
        self._id = query_id
        self._folder = Path(tempfile.mkdtemp(prefix="athena-"))
        self._connection = duckdb.connect(
            config={"threads": THREADS, "memory_limit": MEMORY, "temp_directory": str(self._folder / "spill")}
        )
        self._connection.execute(
            "SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET preserve_insertion_order = false"
        )
        self._connection.execute(macros())
        self._reader = Reader(self._connection, database, scope.blob, self._folder, scan_limit)
        self._stopped = threading.Event()

    @property
    def scanned(self) -> int:
        """Bytes of the columns read so far."""
        return self._reader.scanned

    def interrupt(self) -> None:
        """Stop what DuckDB does."""
        with contextlib.suppress(duckdb.Error):  # closed in the meantime
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
        select, columns = self._reader.typed(self._reader.prepared(query))
        names = [name for name, _ in columns]
        rows = [tuple(text_of(value) for value in row) for row in self._connection.execute(select).fetchall()]
        self._check()
        url = f"{self._location}{self._id}.csv"
        self._put(url, _csv([names, *rows]))
        self._put(f"{url}.metadata", b"")
        return Answer([(name, result_type(kind)) for name, kind in columns], [names, *rows], output=url)

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
        select, columns = self._reader.typed(self._reader.prepared(created.expression))
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
            names = ", ".join(quoted(key) for key in output.keys)
            found = self._connection.execute(f"SELECT count(*) FROM (SELECT DISTINCT {names} FROM written)").fetchone()
            if found is not None and int(found[0]) > MOST_PARTITIONS:
                raise QueryFailedError(
                    "HIVE_TOO_MANY_OPEN_PARTITIONS",
                    f"Exceeded limit of {MOST_PARTITIONS} open writers for partitions/buckets.",
                )
            options += f", PARTITION_BY ({names}), FILENAME_PATTERN '{tag}_{{i}}'"
            self._connection.execute(f"COPY written TO {literal(str(folder))} ({options})")
        else:
            folder.mkdir()
            self._connection.execute(f"COPY written TO {literal(str(folder / tag))} ({options})")
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
