"""`data-platform unload`: submit a query, follow it, fetch its files; a client of the API like any other."""

import time
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from data_platform.cli.output import JsonOption, err, out, print_json, print_rows
from data_platform.cli.unload_client import FINAL, UnloadClient, download, quoted
from data_platform.errors import PlatformError
from data_platform.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Unload a query by request id: submit, wait, download.")
POLL_S = 0.5

RequestId = Annotated[str, typer.Argument(help="The request's id.")]
ToOption = Annotated[Path | None, typer.Option("--to", file_okay=False, help="Download the files into this folder.")]


@app.command(epilog="Example: data-platform unload submit 'select * from market.flights limit 10' --wait")
def submit(
    sql: Annotated[str | None, typer.Argument(help="The SELECT; left out: --file, or - for standard input.")] = None,
    *,
    request_id: Annotated[str | None, typer.Option("--id", help="Request id; default: a new one.")] = None,
    file: Annotated[typer.FileText | None, typer.Option("--file", help="Read the SELECT from here.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="csv, parquet, json, legacy.")] = None,
    compression: Annotated[str | None, typer.Option(help="gzip, zstd, bzip2, none.")] = None,
    header: Annotated[bool | None, typer.Option("--header/--no-header", help="Header lines.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="One ASCII character.")] = None,
    null_as: Annotated[str | None, typer.Option(help="Text of a null value.")] = None,
    parallel: Annotated[bool | None, typer.Option("--parallel/--no-parallel", help="A file or more a slice.")] = None,
    max_file_size_mb: Annotated[int | None, typer.Option(help="5 to 6348.")] = None,
    partition_by: Annotated[list[str] | None, typer.Option(help="A column that becomes folders; repeatable.")] = None,
    region: Annotated[str | None, typer.Option(help="Of the bucket, when not the warehouse's.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
    to: ToOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a query. With --wait (or --to) follow it to its end; exit 1 unless it is DONE."""
    if sql == "-":
        sql = typer.get_text_stream("stdin").read()
    if (sql is None) == (file is None):
        raise typer.BadParameter("give the SELECT, or --file")
    options: dict[str, object] = {
        "format": format_,
        "compression": compression,
        "header": header,
        "delimiter": delimiter,
        "nullAs": null_as,
        "parallel": parallel,
        "maxFileSizeMb": max_file_size_mb,
        "partitionBy": partition_by or None,
        "region": region,
    }
    body: dict[str, object] = {
        "requestId": request_id or f"cli-{uuid4().hex[:12]}",
        "sql": file.read() if file is not None else sql,
        **{name: value for name, value in options.items() if value is not None},
    }
    client = UnloadClient(load_settings())
    state = client.post("", body)
    if wait or to is not None:
        state = _follow(client, state, quiet=as_json)
    _show(state, as_json=as_json)
    if to is not None and state["status"] == "DONE":
        _fetch(client, str(state["requestId"]), to, quiet=as_json)


@app.command()
def status(
    request_id: RequestId,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how a request stands."""
    client = UnloadClient(load_settings())
    state = client.get(f"/status/{quoted(request_id)}")
    if wait:
        state = _follow(client, state, quiet=as_json)
    _show(state, as_json=as_json, must_be_done=wait)


@app.command("file")
def file_(request_id: RequestId, to: ToOption = None, as_json: JsonOption = False) -> None:
    """Print links to the files of a request, or with --to fetch the files themselves, their sizes checked."""
    client = UnloadClient(load_settings())
    if to is not None:
        paths = _fetch(client, request_id, to, quiet=as_json)
        if as_json:
            print_json([str(path) for path in paths])
        return
    files = client.get(f"/file/{quoted(request_id)}")["files"]
    print_rows(files, as_json=as_json, title=request_id)


@app.command()
def cancel(request_id: RequestId, as_json: JsonOption = False) -> None:
    """Stop a request."""
    _show(UnloadClient(load_settings()).post(f"/{quoted(request_id)}/cancel"), as_json=as_json, must_be_done=False)


@app.command()
def retry(
    request_id: RequestId,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Try a FAILED request again."""
    client = UnloadClient(load_settings())
    state = client.post(f"/{quoted(request_id)}/retry")
    if wait:
        state = _follow(client, state, quiet=as_json)
    _show(state, as_json=as_json, must_be_done=wait)


@app.command("list")
def list_(
    status_: Annotated[str | None, typer.Option("--status", help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the token's own requests."""
    client = UnloadClient(load_settings())
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(found) < limit:
        query = {"status": status_, "cursor": cursor, "limit": min(limit - len(found), 200)}
        page = client.get("", query)
        found += page["requests"]
        cursor = page["cursor"]
        if cursor is None:
            break
    if as_json:
        print_json(found)
        return
    print_rows(
        [
            {
                "request": state["requestId"],
                "status": state["status"],
                "rows": state["rows"],
                "bytes": state["bytes"],
                "files": len(state["files"]),
                "created": state["createdAt"],
                "error": state["error"] and state["error"]["message"],
            }
            for state in found
        ],
        as_json=False,
        title="unload requests",
    )


def _follow(client: UnloadClient, state: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Poll until a final state, with a line that tells how far it is."""
    path = f"/status/{quoted(str(state['requestId']))}"
    if quiet:
        while state["status"] not in FINAL:
            time.sleep(POLL_S)
            state = client.get(path)
        return state
    with err.status(_progress(state), spinner="line") as line:
        while state["status"] not in FINAL:
            time.sleep(POLL_S)
            state = client.get(path)
            line.update(_progress(state))
    return state


def _progress(state: dict[str, Any]) -> str:
    rows = "" if state["rows"] is None else f", {state['rows']:,} rows, {(state['bytes'] or 0) / 2**20:,.1f} MiB"
    return f"{state['requestId']}: {state['status']}{rows}"


def _show(state: dict[str, Any], *, as_json: bool, must_be_done: bool = True) -> None:
    """Print the state; a request that has ended otherwise than asked for ends the command with 1."""
    if as_json:
        print_json(state)
    else:
        out.print(_progress(state), markup=False, soft_wrap=True)
        for url in state["files"]:
            out.print(f"  {url}", markup=False, soft_wrap=True)
    if must_be_done and state["status"] in FINAL - {"DONE"}:
        error = state["error"] or {"code": state["status"], "message": f"it is {state['status']}"}
        raise PlatformError(f"{state['requestId']} is {state['status']}: {error['message']} [{error['code']}]")


def _fetch(client: UnloadClient, request_id: str, folder: Path, *, quiet: bool) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for file in client.get(f"/file/{quoted(request_id)}")["files"]:
        path = download(file, folder)
        paths.append(path)
        if not quiet:
            out.print(f"{path} ({file['bytes']:,} bytes, {file['rows']:,} rows)", markup=False, soft_wrap=True)
    return paths
