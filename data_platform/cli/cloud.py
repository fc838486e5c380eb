"""`data-platform cloud ...`: the embedded cloud as background processes. The work is done in local/supervisor.py."""

import os
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from data_platform.cli.output import JsonOption, err, out, print_json, print_rows
from data_platform.errors import PlatformError
from data_platform.local import control, supervisor
from data_platform.local.engine import ENGINES
from data_platform.local.state import CloudState, Host
from data_platform.settings import Settings, variable_of

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

EngineArgument = Annotated[str, typer.Argument(help=f"One of {', '.join(ENGINES)}.")]


def _state() -> CloudState:
    """The state folder, read by itself: `down` must work when some other setting does not fit."""
    return CloudState(Path(os.environ.get(variable_of("home")) or Settings.model_fields["home"].default))


def _running(state: CloudState) -> Host:
    host = state.host()
    if host is None:
        raise PlatformError(f"no embedded cloud runs in {state.home}", hint="data-platform cloud up")
    if not host.ready:
        raise PlatformError(
            f"the embedded cloud in {state.home} is still starting", hint="data-platform cloud up waits"
        )
    return host


def _say(line: str) -> None:
    """Progress goes to standard error: standard output may be captured by a shell."""
    err.print(f"  {line}", markup=False)


@app.command()
def up(
    engine: Annotated[
        list[str] | None, typer.Option(help="Only this one and what it needs; may be repeated. Default: all.")
    ] = None,
    *,
    provision: Annotated[bool, typer.Option(help="Make buckets, queues, topics and tables, too.")] = True,
    new_ports: Annotated[bool, typer.Option("--new-ports", help="Take other ports than the last time.")] = False,
) -> None:
    """Start every engine in the background, provision, and return when all is ready."""
    state = _state()
    since = time.monotonic()
    if new_ports:
        if state.locked():
            raise PlatformError(
                "the embedded cloud is running; its ports can only change while it is down",
                hint="data-platform cloud down, then data-platform cloud up --new-ports",
            )
        state.forget_ports()
    supervisor.up(state, engines=engine or (), provision=provision, on_progress=_say)
    out.print(f"embedded cloud is up in {state.home} ({time.monotonic() - since:.1f} s)", markup=False, soft_wrap=True)
    out.print('to reach it from this shell: eval "$(data-platform cloud env)"', markup=False, soft_wrap=True)


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Show what runs and where it listens; exit 1 when no cloud runs or an engine has died."""
    state = _state()
    rows = supervisor.status(state)
    if as_json:
        print_json({"home": str(state.home), "running": bool(rows), "engines": rows})
    elif rows:
        print_rows([_shown(row) for row in rows], as_json=False, title=f"embedded cloud, logs in {state.logs}")
    if not rows and not as_json:
        _running(state)
    dead = [str(row["engine"]) for row in rows if row["state"] != "up"]
    for engine in dead:
        err.print(f"{engine} has died: data-platform cloud restart {engine}", markup=False)
    if dead or not rows:
        raise typer.Exit(1)


def _shown(row: Mapping[str, Any]) -> dict[str, object]:
    """The columns for a person: a pid is no quantity, the logs' folder stands in the title."""
    ports = ", ".join(f"{name} {port}" for name, port in (row["ports"] or {}).items())
    pid = None if row["pid"] is None else str(row["pid"])
    return {"engine": row["engine"], "state": row["state"], "ports": ports, "pid": pid, "up_s": row["up_s"]}


@app.command()
def env(as_json: JsonOption = False) -> None:
    """Print the variables that lead clients to the running cloud, as lines for a shell."""
    state = _state()
    _running(state)
    variables = state.env()
    if as_json:
        print_json(variables)
        return
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def down() -> None:
    """End every engine; returns when all has exited. What they keep stays."""
    state = _state()
    ran = supervisor.down(state)
    out.print("embedded cloud is down" if ran else f"no embedded cloud ran in {state.home}", soft_wrap=True)


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """End every engine and remove all they kept."""
    state = _state()
    if not yes:
        typer.confirm(f"Remove {state.folder} with all its data?", abort=True)
    supervisor.reset(state)
    out.print(f"removed {state.folder}", markup=False, soft_wrap=True)


@app.command()
def kill(engine: EngineArgument) -> None:
    """Kill one engine with SIGKILL, as a crash would; it stays down until `restart` or `up`."""
    control.call(_running(_state()), "kill", engine)
    out.print(f"{engine} is killed", markup=False)


@app.command()
def restart(engine: EngineArgument) -> None:
    """End one engine and start it on the same ports; queues, rules and topics are made again."""
    control.call(_running(_state()), "restart", engine)
    out.print(f"{engine} is up", markup=False)
