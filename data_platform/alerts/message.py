"""Alert texts: many problems in, few messages out, each understandable by somebody who knows only the message. Pure."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

REASONS_SHOWN = 3
SUBJECTS_SHOWN = 10
REASON_LENGTH = 600
NOBODY = "nobody"  # owner of what the catalogue names no owner for


@dataclass(frozen=True)
class Problem:
    """One thing that went wrong: of which subject (dataset or job), in which partition, why, what to do about it."""

    owner: str
    subject: str
    what: str  # in the words of the title: "failed", "check not_null did not pass"
    partition: str | None
    reason: str
    next_step: str
    run_id: str  # empty where no run is concerned


@dataclass(frozen=True)
class Alert:
    """One message to one owner; `about` identifies what it is about where the text may differ from tick to tick."""

    owner: str
    title: str
    body: str
    about: str = ""

    @property
    def key(self) -> str:
        """The same for the same message: a repeated tick and an hourly check send it once."""
        identity = self.about or f"{self.title}\n{self.body}"
        return hashlib.sha256(f"{self.owner}\n{identity}".encode()).hexdigest()[:16]


def group(problems: Iterable[Problem], *, env: str, dagster_url: str | None) -> list[Alert]:
    """One message per owner and subject, however many partitions and runs; one per owner for many subjects."""
    by_owner: dict[str, dict[str, list[Problem]]] = defaultdict(lambda: defaultdict(list))
    for problem in problems:
        by_owner[problem.owner][problem.subject].append(problem)
    alerts: list[Alert] = []
    for owner, subjects in sorted(by_owner.items()):
        if len(subjects) > REASONS_SHOWN:
            alerts.append(_summary(owner, subjects, env, dagster_url))
        else:
            alerts += [_single(owner, subject, found, env, dagster_url) for subject, found in sorted(subjects.items())]
    return alerts


def _single(owner: str, subject: str, problems: Sequence[Problem], env: str, dagster_url: str | None) -> Alert:
    title = f"[{env}] {subject}: {_what(problems)}"
    lines = [*_reasons(problems), *_again(subject, problems), *_where(problems, dagster_url), _why_you(owner, subject)]
    return Alert(owner, title, "\n".join(lines))


def _summary(owner: str, subjects: dict[str, list[Problem]], env: str, dagster_url: str | None) -> Alert:
    lines: list[str] = []
    for subject, problems in sorted(subjects.items())[:SUBJECTS_SHOWN]:
        lines.append(f"- {subject}: {_what(problems)}")
    if len(subjects) > SUBJECTS_SHOWN:
        lines.append(f"- and {len(subjects) - SUBJECTS_SHOWN} more")
    everything = [problem for problems in subjects.values() for problem in problems]
    lines += ["", *_reasons(everything), *_where(everything, dagster_url), _why_you(owner, "them")]
    return Alert(owner, f"[{env}] {len(subjects)} datasets and jobs need you", "\n".join(lines))


def _what(problems: Sequence[Problem]) -> str:
    parts: list[str] = []
    for what in dict.fromkeys(problem.what for problem in problems):
        days = sorted({p.partition for p in problems if p.what == what and p.partition is not None})
        text = what
        if len(days) == 1:
            text += f" for {days[0]}"
        elif days:
            text += f" for {len(days)} days between {days[0]} and {days[-1]}"
        parts.append(text)
    return "; ".join(parts)


def _reasons(problems: Sequence[Problem]) -> list[str]:
    counted = Counter((problem.reason[:REASON_LENGTH], problem.next_step) for problem in problems)
    lines: list[str] = []
    for (reason, next_step), count in counted.most_common(REASONS_SHOWN):
        times = f" ({count} times)" if count > 1 else ""
        lines += [f"Why{times}: {reason}", f"What to do: {next_step}"]
    if len(counted) > REASONS_SHOWN:
        lines.append(f"There are {len(counted) - REASONS_SHOWN} more reasons; the runs tell them.")
    return lines


def _again(subject: str, problems: Sequence[Problem]) -> list[str]:
    """The command that makes the days of a dataset again; a subject without days is made otherwise."""
    days = sorted({problem.partition for problem in problems if problem.partition is not None})
    if not days or subject.count("/") != 1:
        return []
    return [f"To make the days again: data-platform backfill {subject} --from {days[0]} --to {days[-1]}"]


def _where(problems: Sequence[Problem], dagster_url: str | None) -> list[str]:
    runs = list(dict.fromkeys(problem.run_id for problem in problems if problem.run_id))
    if not runs:
        return []
    shown = [f"{dagster_url.rstrip('/')}/runs/{run}" if dagster_url else f"run {run}" for run in runs[:REASONS_SHOWN]]
    more = [f"and {len(runs) - REASONS_SHOWN} more runs"] if len(runs) > REASONS_SHOWN else []
    return ["Where in Dagster: " + ", ".join([*shown, *more])]


def _why_you(owner: str, subject: str) -> str:
    if owner not in {"", NOBODY}:
        return f"Sent to {owner}, who owns {subject} in the data platform's catalogue."
    return "Sent to you because nobody else is named for it: see * in DATA_PLATFORM_ALERT_ROUTES."
