"""What the code location holds, as plain text: for the reference page and for whoever asks without a UI."""

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg

from data_platform.build import build_defs
from data_platform.settings import Settings


@dataclass(frozen=True)
class Entry:
    """One thing there is: asset, check, job, schedule or sensor."""

    kind: str
    name: str
    text: str


def inventory(settings: Settings) -> list[Entry]:
    """Everything in the code location of `settings`, by kind and name."""
    return sorted(_entries(build_defs(settings)), key=lambda entry: (entry.kind, entry.name))


def _entries(definitions: dg.Definitions) -> Iterator[Entry]:
    repository = definitions.get_repository_def()
    for spec in definitions.resolve_all_asset_specs():
        yield Entry("asset", spec.key.to_user_string(), _line(spec.description))
    checks: dict[str, list[str]] = {}
    for key in repository.asset_graph.asset_check_keys:
        checks.setdefault(key.asset_key.to_user_string(), []).append(key.name)
    for asset, names in checks.items():
        yield Entry("check", asset, ", ".join(f"`{name}`" for name in sorted(names)))
    for job in repository.get_all_jobs():
        if not job.name.startswith("__"):
            yield Entry("job", job.name, _line(job.description))
    for schedule in repository.schedule_defs:
        text = _line(schedule.description) or f"Starts the job {schedule.job_name}."
        yield Entry("schedule", schedule.name, f"`{schedule.cron_schedule}` {schedule.execution_timezone}. {text}")
    for sensor in repository.sensor_defs:
        yield Entry("sensor", sensor.name, _line(sensor.description))


def _line(text: str | None) -> str:
    """The first paragraph in one line."""
    return " ".join((text or "").strip().partition("\n\n")[0].split())
