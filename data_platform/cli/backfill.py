"""`data-platform backfill`: a range of days of a dataset through its layers, planned first, with progress."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from data_platform.cli.output import JsonOption, err, out, print_json
from data_platform.errors import ConfigurationError
from data_platform.settings import load_settings

if TYPE_CHECKING:
    from data_platform.assets.keys import Stage
    from data_platform.jobs.backfill import BackfillPlan

app = typer.Typer()
STAGES = "unload,curated,clickhouse"
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"])]


@app.command(epilog="Example: data-platform backfill market/flights --from 2013-02-01 --to 2013-03-02 --dry-run")
def backfill(
    dataset: Annotated[str, typer.Argument(metavar="DOMAIN/TABLE", help="The dataset, as in the catalogue.")],
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, included.")] = None,
    stages: Annotated[str | None, typer.Option(help=f"Layers, comma-separated, of {STAGES}; default: all.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Do also the days an unfinished run has done.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Move a range of days through unload, curated and clickhouse as one Dagster run in this process.

    The same command again takes up where a failed or interrupted run ended.
    """
    from data_platform.assets.keys import Stage
    from data_platform.build import build_defs
    from data_platform.catalog import load_catalog
    from data_platform.jobs.backfill import Checkpoint, plan_backfill, require_success, run_backfill
    from data_platform.jobs.estimates import estimated_bytes
    from data_platform.jobs.instance import open_instance

    settings = load_settings()
    catalog = load_catalog(settings.catalog)
    wanted = None
    if stages is not None:
        try:
            wanted = [Stage(name.strip()) for name in stages.split(",")]
        except ValueError as error:
            raise ConfigurationError(f"--stages: {error}", hint=f"layers are {STAGES}") from None
    with open_instance(settings) as instance:
        plan = plan_backfill(
            catalog,
            instance,
            dataset,
            first=None if first is None else first.date(),
            last=None if last is None else last.date(),
            stages=wanted,
            restart=restart,
        )
        if not as_json:
            _print_plan(plan, estimated_bytes(instance, plan))
        if dry_run:
            if as_json:
                facts = {"dataset": dataset, "stages": plan.stages, "days": plan.days, "remaining": plan.remaining}
                size = estimated_bytes(instance, plan)
                print_json({**facts, "partitions": plan.partitions, "runs": 1, "estimated_bytes": size})
            return
        if plan.days and not plan.remaining:
            if as_json:
                print_json({"run_id": plan.resumes, "success": True, "reason": None, "stages": []})
            else:
                out.print("every day is done already; --restart does them again")
            return
        totals: dict[Stage, list[int]] = {stage: [0, 0, 0] for stage in plan.stages}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=err) as progress:
            tasks = {stage: progress.add_task(stage.value, total=len(plan.remaining) or 1) for stage in plan.stages}

            def tell(checkpoint: Checkpoint) -> None:
                progress.advance(tasks[checkpoint.stage])
                total = totals[checkpoint.stage]
                total[0] += 1
                total[1] += checkpoint.rows
                total[2] += checkpoint.bytes

            result = run_backfill(build_defs(settings, catalog=catalog), catalog, instance, plan, tell)
    rows = [
        {"stage": stage.value, "partitions": count, "rows": rows, "bytes": size}
        for stage, (count, rows, size) in totals.items()
    ]
    if as_json:
        print_json({"run_id": result.run_id, "success": result.success, "reason": result.reason, "stages": rows})
    else:
        for row in rows:
            out.print(
                f"{row['stage']:<11}{row['partitions']:>5} partitions {row['rows']:>12,} rows {row['bytes']:>14,} bytes"
            )
    require_success(result)


def _print_plan(plan: "BackfillPlan", sizes: "Mapping[Stage, int | None]") -> None:
    days = plan.days
    what = f"{len(days)} days, {days[0]} to {days[-1]}" if days else "one snapshot"
    stages = ", ".join(plan.stages)
    out.print(f"{plan.dataset.key}: {what}, through {stages}: {plan.partitions} partitions, in one run", soft_wrap=True)
    known = ", ".join(f"{stage} {size:,}" for stage, size in sizes.items() if size is not None)
    by = "by the newest days that were made" if known else "not known, none of its days was made before"
    out.print(f"estimated bytes: {f'{known}, {by}' if known else by}", soft_wrap=True)
    if plan.resumes is not None:
        out.print(f"resuming run {plan.resumes[:8]}: {len(plan.done)} days are done, {len(plan.remaining)} remain")
