"""`data-platform trace`: from rows of a table back to the S3 object, the curated partition, the UNLOAD and its SQL.

What an engine that cannot be reached would have told is left out, with the reason: the rows' object alone is in them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_platform.cli.output import JsonOption, out, print_json
from data_platform.errors import Fault, PlatformError
from data_platform.settings import Settings, load_settings

if TYPE_CHECKING:
    from data_platform.catalog.keys import CuratedKey
    from data_platform.catalog.models import Dataset

app = typer.Typer()

_UNLOAD_SQL = """
SELECT query_text, status, start_time, end_time FROM sys_query_history
WHERE query_type = 'UNLOAD' AND position(%s IN query_text) > 0
ORDER BY query_id DESC LIMIT 1
"""


@app.command(epilog="Example: data-platform trace market/flights --where carrier=UA --limit 1")
def trace(
    source: Annotated[str, typer.Argument(help="An _object value (s3://bucket/key@version), or <domain>/<table>.")],
    where: Annotated[
        list[str] | None, typer.Option("--where", help="column=value of the rows; may be repeated. With a table.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many objects.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Trace rows to where they came from: object, load, curated partition, UNLOAD attempt, SQL."""
    settings = load_settings()
    identities = [source] if source.startswith("s3://") else _objects(settings, source, where or [], limit)
    traced = [_trace(settings, identity) for identity in identities]
    if as_json:
        print_json(traced)
        return
    for entry in traced:
        for name, value in entry.items():
            if isinstance(value, dict):
                out.print(f"{name}:", markup=False)
                for inner, told in value.items():
                    out.print(f"{inner:>18}: {told}", markup=False, soft_wrap=True)
            else:
                out.print(f"{name}: {value}", markup=False, soft_wrap=True)


def _objects(settings: Settings, table: str, where: list[str], limit: int) -> list[str]:
    """The objects the chosen rows came from."""
    from data_platform.catalog import load_catalog
    from data_platform.catalog.ddl import OBJECT, columns_of, qualified, quote
    from data_platform.clients import clickhouse

    dataset = load_catalog(settings.catalog).dataset(table)
    types = {name: kind for name, kind, _ in columns_of(dataset)}
    conditions = ["1"]
    parameters: dict[str, Any] = {"limit": limit}
    for number, text in enumerate(where):
        column, equals, value = text.partition("=")
        if not equals or column not in types:
            raise PlatformError(f"--where {text}: not <column>=<value>", hint=f"columns: {', '.join(types)}")
        conditions.append(f"toString({quote(column)}) = {{value{number}:String}}")
        parameters[f"value{number}"] = value
    with clickhouse.connect(settings) as client:
        rows = client.query(
            f"SELECT DISTINCT {OBJECT} FROM {qualified(dataset.domain, dataset.storage_name)} "
            f"WHERE {' AND '.join(conditions)} LIMIT {{limit:UInt32}}",
            parameters=parameters,
        ).result_rows
    if not rows:
        raise PlatformError(
            f"{table} has no such row", hint="check the values of --where; a row of today may not be loaded yet"
        )
    return [str(identity) for (identity,) in rows]


def _trace(settings: Settings, identity: str) -> dict[str, Any]:
    from data_platform.catalog import load_catalog
    from data_platform.catalog.keys import CuratedKey, parse_object_identity

    bucket, text, version = parse_object_identity(identity)
    key = CuratedKey.parse(text)
    dataset = load_catalog(settings.catalog).dataset(key.dataset)
    traced: dict[str, Any] = {"object": identity}
    traced["load"] = _reached("ClickHouse", lambda: _load(settings, key, identity))
    traced["s3"] = _reached("S3", lambda: _stored(settings, bucket, text, version))
    curated = _reached("S3", lambda: _curated(settings, bucket, key))
    traced["curated"] = curated
    prefix = curated.get("source")
    if curated.get("kind") == "unload" and prefix:
        traced["unload"] = _reached("PostgreSQL", lambda: _unload(settings, dataset, key, prefix))
        traced["sql"] = _reached("Redshift", lambda: _sql(settings, prefix))
    return traced


def _load(settings: Settings, key: "CuratedKey", identity: str) -> dict[str, Any]:
    from data_platform.clients import clickhouse
    from data_platform.loading.history import object_history

    with clickhouse.connect(settings) as client:
        found = object_history(client, dataset=key.dataset, ds=key.ds, key=key.key, limit=1000)
    for entry in found:
        if identity.endswith(f"{entry['key']}@{entry['version']}"):
            return entry
    return {"unknown": "the register does not know this object"}


def _stored(settings: Settings, bucket: str, key: str, version: str) -> dict[str, Any]:
    from botocore.exceptions import ClientError

    from data_platform.clients import aws

    s3 = aws.s3(settings)
    try:
        head = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey"}:
            return {"current": "deleted"}
        raise
    current = version in {head.get("VersionId"), head["ETag"].strip('"')}
    return {
        "current": "this version" if current else f"a later one, {head.get('VersionId')}",
        "bytes": head["ContentLength"],
        "put_at": head["LastModified"],
    }


def _curated(settings: Settings, bucket: str, key: "CuratedKey") -> dict[str, Any]:
    from data_platform.clients import aws
    from data_platform.curation.manifest import generation_of, read_manifest

    generation = generation_of(key.file)
    if generation is None:
        return {"producer": "a foreign one: no manifest lists this file"}
    stored = read_manifest(aws.s3(settings), bucket, key.domain, key.table, key.ds)
    if stored is None:
        return {"generation": generation, "manifest": "none"}
    manifest = stored.manifest
    told: dict[str, Any] = {"partition": key.prefix, "generation": generation}
    if all(file.key != key.key for file in manifest.files):
        return {**told, "manifest": f"replaced by generation {manifest.generation}"}
    return {
        **told,
        "committed_at": manifest.created_at,
        "rows": manifest.rows,
        "kind": manifest.source.kind,
        "source": manifest.source.reference,
        "source_version": manifest.source.version,
    }


def _unload(settings: Settings, dataset: "Dataset", key: "CuratedKey", reference: str) -> dict[str, Any]:
    import sqlalchemy as sa

    from data_platform.clients import postgres
    from data_platform.ledger.dataset_unloads import dataset_unloads

    engine = postgres.engine(settings)
    try:
        with engine.connect() as connection:
            rows = connection.execute(
                sa.select(dataset_unloads).where(dataset_unloads.c.dataset == dataset.key)
            ).mappings()
            for row in rows:
                if reference.endswith(str(row["prefix"])):
                    return {
                        name: row[name]
                        for name in ("attempt", "status", "prefix", "rows", "query_id", "run_id", "started_at")
                    }
    finally:
        engine.dispose()
    return {"unknown": f"the ledger has no attempt under {reference} ({key.partition})"}


def _sql(settings: Settings, reference: str) -> dict[str, Any]:
    from data_platform.clients import redshift

    with redshift.connect(settings) as connection, connection.cursor() as cursor:
        cursor.execute(_UNLOAD_SQL, (reference,))
        row = cursor.fetchone()
    if not row:
        return {"unknown": "the warehouse keeps its query history for some days only"}
    return {"text": str(row[0]).strip(), "status": str(row[1]).strip(), "started_at": row[2], "ended_at": row[3]}


def _reached(engine: str, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an engine tells, or that it cannot be asked from here."""
    from data_platform.clients.classify import classify

    try:
        return ask()
    except Exception as error:
        fault = error.fault if isinstance(error, PlatformError) else classify(error)
        if fault in {Fault.TRANSIENT, Fault.THROTTLED, Fault.CONFIGURATION}:
            return {"not reached": f"{engine}: {str(error).splitlines()[0]}"}
        raise
