"""`data-platform loader`: the agent that loads what the queues announce, until stopped or until they are empty."""

import logging
import time
from typing import Annotated

import typer

from data_platform.cli.output import JsonOption, err, out, print_json
from data_platform.errors import ConfigurationError, PlatformError
from data_platform.settings import load_settings

app = typer.Typer(invoke_without_command=True)
POLL_S = 0.5


@app.callback()
def loader(
    domain: Annotated[list[str] | None, typer.Option("--domain", help="Only this domain; may be repeated.")] = None,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End once the queues are empty.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="With --until-empty: give up after this many seconds.")] = 300,
    workers: Annotated[int, typer.Option(min=1, max=20, help="Loads at once, per domain.")] = 2,
    report: Annotated[bool, typer.Option(help="Report what was loaded to Dagster, when it can be reached.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Load S3 objects into ClickHouse as their events arrive, exactly once each. Ctrl-C finishes what is begun."""
    from data_platform.catalog import load_catalog
    from data_platform.jobs.reporting import LoadReporter
    from data_platform.loading.agent import Agent

    settings = load_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    catalog = load_catalog(settings.catalog)
    domains = domain or list(catalog.domains)
    unknown = sorted(set(domains) - set(catalog.domains))
    if unknown:
        raise ConfigurationError(f"no domain {', '.join(unknown)}", hint=f"domains: {', '.join(catalog.domains)}")
    reporter = LoadReporter.open(settings, catalog) if report else None
    agent = Agent(settings, catalog, domains, workers=workers, on_loaded=None if reporter is None else reporter.loaded)
    agent.start()
    err.print(f"loading {', '.join(domains)}; Ctrl-C ends it", markup=False)
    empty = True
    try:
        if until_empty:
            empty = agent.until_empty(timeout)
        else:
            while True:
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
        raise PlatformError(f"the queues were not empty after {timeout:.0f} s", hint="a longer --timeout goes on")
