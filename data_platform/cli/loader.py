"""`data-platform loader`: the agent that loads what the queues announce, its status and history, pause and resume."""

import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_platform.cli.output import JsonOption, err, out, print_json, print_rows
from data_platform.errors import ConfigurationError, PlatformError
from data_platform.settings import Settings, load_settings

if TYPE_CHECKING:
    from data_platform.catalog import Catalog
    from data_platform.loading.domains import DomainState

app = typer.Typer(invoke_without_command=True)
POLL_S = 0.5
_TEXTS = frozenset({"domain", "state", "since", "reason", "agent"})
REFRESH_S = 2.0


@app.callback()
def loader(
    context: typer.Context,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="Only this domain; may be repeated.")] = None,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End once the queues are empty.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="With --until-empty: give up after this many seconds.")] = 300,
    workers: Annotated[int, typer.Option(min=1, max=20, help="Loads at once, at most.")] = 20,
    report: Annotated[bool, typer.Option(help="Report what was loaded to Dagster, when it can be reached.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Load S3 objects into ClickHouse as their events arrive, exactly once each. Ctrl-C finishes what is begun."""
    if context.invoked_subcommand is not None:
        return
    from data_platform.jobs.reporting import LoadReporter
    from data_platform.loading.agent import Agent

    settings, catalog = _settings_and_catalog()
    domains = _domains(catalog, domain)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    reporter = LoadReporter.open(settings, catalog) if report else None
    agent = Agent(
        settings,
        catalog,
        domains,
        workers=workers,
        on_loaded=None if reporter is None else reporter.loaded,
        metrics_port=None if until_empty else settings.loader_metrics_port or None,
    )
    empty = True
    try:
        agent.start()
        err.print(f"loading {', '.join(domains)}; Ctrl-C ends it", markup=False)
        if until_empty:
            empty = agent.until_empty(timeout)
        else:
            while True:
                agent.check()
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        err.print("finishing what is being loaded")
    finally:
        agent.stop()
        if reporter is not None:
            reporter.close()
    tally = agent.tally
    if as_json:
        print_json(
            {"objects": tally.objects, "rows": tally.rows, "outcomes": tally.outcomes, "failed": tally.failed,
             "dead_lettered": tally.dead_lettered, "empty": empty}
        )  # fmt: skip
    else:
        out.print(f"{tally.objects} objects, {tally.rows:,} rows; {tally.dead_lettered} dead letters")
    if not empty:
        raise PlatformError(
            f"messages still wait in the queues after {timeout:.0f} s",
            hint="what was loaded stays; run it again or with a longer --timeout; see data-platform loader status",
        )


@app.command()
def status(
    domain: Annotated[list[str] | None, typer.Option("--domain", help="Only this domain; may be repeated.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show queues, states and the last hour's loads, by domain."""
    from rich.live import Live

    settings, catalog = _settings_and_catalog()
    domains = _domains(catalog, domain)
    if not watch:
        print_rows(_status(settings, domains), as_json=as_json, title="loader, last hour")
        return
    with Live(console=out, auto_refresh=False) as live:
        while True:
            live.update(_table(_status(settings, domains)), refresh=True)
            time.sleep(REFRESH_S)


@app.command()
def history(
    dataset: Annotated[str | None, typer.Argument(help="<domain>/<table>; all without it.")] = None,
    day: Annotated[str | None, typer.Option("--ds", help="Only this partition, YYYY-MM-DD.")] = None,
    key: Annotated[str | None, typer.Option(help="Only objects whose key contains this.")] = None,
    state: Annotated[str | None, typer.Option(help="Only intent, loaded, removed or failed.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List what became of every object version: rows, attempts, errors, latency, plan, query id; newest first."""
    from data_platform.clients import clickhouse
    from data_platform.loading.history import object_history

    settings, catalog = _settings_and_catalog()
    if dataset is not None:
        catalog.dataset(dataset)
    with clickhouse.connect(settings) as client:
        rows = object_history(client, dataset=dataset, ds=_day(day), key=key, state=state, limit=limit)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        # Keys and ids are copied from here: they stand whole on lines of their own, however narrow the terminal.
        out.print("\n".join(_entry(row)), markup=False, soft_wrap=True)
    if not rows:
        out.print("no object version fits")


def _entry(row: Mapping[str, Any]) -> list[str]:
    """What became of an object version, in lines: when and what, why, which object, which query."""
    facts = [f"{row['rows']:,} rows", f"{row['bytes']:,} bytes"]
    if row["latency_s"] is not None:
        facts.append(f"{row['latency_s']:,.1f} s after its event")
    facts += [f"{row['attempts']} failed attempts"] * bool(row["attempts"]) + [row["plan"]] * bool(row["plan"])
    lines = [f"{row['changed_at'][:19]}  {row['state']}", f"    {', '.join(facts)}"]
    if row["code"]:
        lines.append(f"    {row['code']} {row['reason']}")
    lines.append(f"    {row['key']}")
    lines.append(f"    version {row['version']}, generation {row['generation']}")
    return [*lines, f"    query {row['query_id']}"] if row["query_id"] else lines


@app.command()
def pause(
    domain: str, reason: Annotated[str, typer.Option(help="Shown by status.")] = "", as_json: JsonOption = False
) -> None:
    """Stop receiving for a domain, in every agent; what is being loaded is finished."""
    from data_platform.loading.domains import DomainState

    _set_state(domain, DomainState.PAUSED, reason or "paused by hand", as_json=as_json)


@app.command()
def resume(domain: str, as_json: JsonOption = False) -> None:
    """Receive for a paused domain again."""
    from data_platform.loading.domains import DomainState

    _set_state(domain, DomainState.RUNNING, "", as_json=as_json)


def _set_state(domain: str, state: "DomainState", reason: str, *, as_json: bool) -> None:
    from data_platform.clients import clickhouse
    from data_platform.loading.domains import write_domain
    from data_platform.loading.lock import worker_name

    settings, catalog = _settings_and_catalog()
    _domains(catalog, [domain])
    with clickhouse.connect(settings) as client:
        write_domain(client, domain, state, reason=reason, worker=worker_name())
    if as_json:
        print_json({"domain": domain, "state": state.value, "reason": reason})
    else:
        out.print(f"{domain} is {state.value}; agents see it within 5 s", markup=False)


def _status(settings: Settings, domains: list[str]) -> list[dict[str, Any]]:
    from data_platform.clients import aws, clickhouse
    from data_platform.loading.domains import read_domains
    from data_platform.loading.history import last_hour
    from data_platform.loading.queues import DomainQueue

    sqs = aws.sqs(settings)
    with clickhouse.connect(settings) as client:
        records = read_domains(client)
        loads = last_hour(client)
    agent = _agent_status(settings)
    rows: list[dict[str, Any]] = []
    for name in domains:
        depth = DomainQueue.open(sqs, settings, name).depth()
        record = records.get(name)
        state = "running" if record is None else record.state.value
        held = record if state != "running" else None
        told = agent.get(name, {}).get("state")
        rows.append(
            {
                "domain": name,
                "state": told if told is not None and state == "running" else state,
                "since": None if held is None else held.changed_at.isoformat(timespec="seconds"),
                "reason": None if held is None else held.reason,
                "agent": "here" if told is not None else "none on this host",
                "waiting": depth.waiting,
                "in_flight": depth.in_flight,
                "dead_letters": depth.dead,
                **loads.get(name, {"loaded": 0, "rows": 0, "failed": 0, "p95_latency_s": None}),
            }
        )
    return rows


def _agent_status(settings: Settings) -> dict[str, dict[str, Any]]:
    """What the agent on this host says of itself; nothing when there is none."""
    if not settings.loader_metrics_port:
        return {}
    try:
        url = f"http://127.0.0.1:{settings.loader_metrics_port}/status"
        with urllib.request.urlopen(url, timeout=1) as answer:
            return json.load(answer)
    except (urllib.error.URLError, TimeoutError, ValueError):
        return {}


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title=f"loader, last hour, {datetime.now(UTC):%H:%M:%S} UTC", title_justify="left")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if name in _TEXTS else "right")
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    return table


def _settings_and_catalog() -> "tuple[Settings, Catalog]":
    from data_platform.catalog import load_catalog

    settings = load_settings()
    return settings, load_catalog(settings.catalog)


def _domains(catalog: "Catalog", chosen: list[str] | None) -> list[str]:
    domains = chosen or list(catalog.domains)
    unknown = sorted(set(domains) - set(catalog.domains))
    if unknown:
        raise ConfigurationError(f"no domain {', '.join(unknown)}", hint=f"domains: {', '.join(catalog.domains)}")
    return domains


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is no day", param_hint="--ds") from None
