"""`data-platform dev`: the embedded cloud with sample data, the loader and Dagster's UI, until Ctrl-C."""

from typing import Annotated

import typer

from data_platform.cli.output import err, out
from data_platform.settings import load_settings

app = typer.Typer()


@app.command()
def dev(
    host: Annotated[str, typer.Option(help="Address of the UI.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the UI.")] = 3000,
    sample: Annotated[bool, typer.Option(help="Load the sample data.")] = True,
) -> None:
    """Start everything and keep it running; the state stays in DATA_PLATFORM_HOME for the next time."""
    from data_platform.local.dev import run_dev

    def tell(line: str) -> None:
        err.print(f"  {line}", markup=False, soft_wrap=True)

    def ready() -> None:
        out.print(f"\nDagster: http://{host}:{port}")
        out.print('in another shell: eval "$(data-platform cloud env)"; then any data-platform command')
        out.print("  e.g. data-platform backfill market/flights --from 2013-02-01 --to 2013-03-02")
        out.print("Ctrl-C ends everything")

    err.print("starting the embedded cloud")
    try:
        run_dev(load_settings().home, host=host, port=port, sample=sample, tell=tell, on_ready=ready)
    finally:
        err.print("stopped")
