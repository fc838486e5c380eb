"""Alert texts: many problems in, few messages out, each understandable by somebody who knows only the message. Pure."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date

from data_platform.errors import RUN_AGAIN, TELL_THE_TEAM

REASONS_SHOWN = 3
SUBJECTS_SHOWN = 40
REASON_LENGTH = 600
NOBODY = "nobody"  # owner of what the catalogue names no owner for
COMMAND = "data-platform backfill"
UNTOUCHED = "Nothing tries it again by itself."
# For TELL_THE_TEAM where the receiver is that team: nobody is left to be told.
YOURS = (
    "look in the run's log, which shows the step and its error; correct the cause, or report it with that log in the "
    "repository of the platform's code (nobody else is named for it: you are * in DATA_PLATFORM_ALERT_ROUTES)"
)


@dataclass(frozen=True)
class Again:
    """Who tries what again by itself, and when: `last` is the date of the last time (ISO; empty: no end).

    It is a promise that holds while the schedule or sensor is on; `meanwhile` says how things are until then.
    """

    who: str
    what: str
    when: str
    meanwhile: str
    last: str = ""


@dataclass(frozen=True)
class Problem:
    """One thing that went wrong: of which subject (dataset or job), in which partition, why, what to do about it.

    `again` says who tries it again by itself; where nobody does, a person has to act, and `effect` says what it means
    for readers until then.
    """

    owner: str
    subject: str
    what: str  # in the words of the title: "failed", "check not_null did not pass"
    partition: str | None
    reason: str
    next_step: str
    run_id: str  # empty where no run is concerned
    again: Again | None = None
    effect: str = UNTOUCHED


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
    waits = ", is tried again by itself" if _waits(problems) else ""
    lines = [
        _act(problems),
        *_reasons(problems, subject),
        *_where(problems, dagster_url),
        _why_you(owner, subject),
    ]
    return Alert(owner, f"[{env}] {subject}: {_what(problems)}{waits}", "\n".join(lines))


def _summary(owner: str, subjects: dict[str, list[Problem]], env: str, dagster_url: str | None) -> Alert:
    everything = [problem for problems in subjects.values() for problem in problems]
    need = "failed and are tried again by themselves" if _waits(everything) else "need you"
    lines = [_act(everything), *_reasons(everything, None), "Which:"]
    for subject, problems in sorted(subjects.items())[:SUBJECTS_SHOWN]:
        lines.append(f"- {subject}: {_what(problems)}")
    if len(subjects) > SUBJECTS_SHOWN:
        lines.append(f"- and {len(subjects) - SUBJECTS_SHOWN} more, all red in Dagster under Assets")
    lines += [*_where(everything, dagster_url), _why_you(owner, None)]
    return Alert(owner, f"[{env}] {len(subjects)} datasets and jobs {need}", "\n".join(lines))


def _waits(problems: Sequence[Problem]) -> bool:
    return all(problem.again is not None for problem in problems)


def _act(problems: Sequence[Problem]) -> str:
    """Whether a person has to do something now, and what it means if nobody does."""
    effects = " ".join(dict.fromkeys(problem.effect for problem in problems if problem.again is None))
    promises = " ".join(_promises([problem.again for problem in problems if problem.again is not None]))
    if effects and promises:
        return f"Act now: yes, where it says What to do. {effects} The others: {promises}"
    return f"Act now: yes. {effects}" if effects else f"Act now: no. {promises}"


def _promises(found: Sequence[Again]) -> Iterator[str]:
    """A sentence a schedule, whatever the number of days it makes again: the oldest is given up first."""
    lasts: dict[Again, set[str]] = defaultdict(set)
    for again in found:
        lasts[replace(again, last="")].add(again.last)
    for again, ends in lasts.items():
        oldest = " the oldest day" if len(ends) > 1 else ""
        last = f",{oldest} for the last time on {min(ends)}" if min(ends) else ""
        yield (
            f"{again.who} tries {again.what} again {again.when}{last}. If that is off (see Dagster, Automation), do "
            f"now what stands below. {again.meanwhile}"
        )


def _what(problems: Sequence[Problem]) -> str:
    parts: list[str] = []
    for what in dict.fromkeys(problem.what for problem in problems):
        days = _days(problem for problem in problems if problem.what == what)
        parts.append(f"{what} for {days}" if days else what)
    return "; ".join(parts)


def _days(problems: Iterable[Problem]) -> str:
    """The days in words; a range without gaps as its ends."""
    days = sorted({problem.partition for problem in problems if problem.partition is not None})
    if len(days) <= REASONS_SHOWN:
        return ", ".join(days)
    whole = _is_range(days[0], days[-1], len(days))
    return f"{len(days)} days, {days[0]} to {days[-1]}" + ("" if whole else " (not all between)")


def _is_range(first: str, last: str, count: int) -> bool:
    try:
        return (date.fromisoformat(last) - date.fromisoformat(first)).days + 1 == count
    except ValueError:  # partitions that are no days
        return True


def _reasons(problems: Sequence[Problem], subject: str | None) -> list[str]:
    """The commonest reasons, each with what to do; `subject`: the only one concerned."""
    by_reason: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        by_reason[problem.reason[:REASON_LENGTH], problem.next_step].append(problem)
    ordered = sorted(by_reason.items(), key=lambda each: -len(each[1]))
    lines: list[str] = []
    for (reason, next_step), found in ordered[:REASONS_SHOWN]:
        among = "" if len(ordered) == 1 else f" ({_days(found)})" if subject else f" ({len(found)} of {len(problems)})"
        lines.append(f"Why{among}: {reason}")
        label = "If it fails again" if _waits(found) else "What to do"
        step, command = _for(found[0].owner, _sentence(next_step)), _again(subject, found)
        if subject and command and step.startswith(f"{RUN_AGAIN}."):
            step, command = with_command(step, command.partition(": ")[2]), ""
        lines += [f"{label}: {step}", *([command] if command else [])]
    if len(ordered) > REASONS_SHOWN:
        lines.append(f"There are {len(ordered) - REASONS_SHOWN} more reasons; the runs tell them.")
    return lines


def _sentence(text: str) -> str:
    """Hints of errors are written small and without a full stop, as the command line shows them."""
    first = text if text.startswith("data-platform") else f"{text[:1].upper()}{text[1:]}"
    return first + ("" if text.endswith((".", "!", "?")) else ".")


def with_command(step: str, command: str) -> str:
    """A step that begins with RUN_AGAIN, with the command in its place; any other one, with the command at its end."""
    if step.startswith(f"{RUN_AGAIN}."):
        return step.replace(RUN_AGAIN, f"{RUN_AGAIN}: {command}", 1)
    return f"{step.rstrip('.')}. To run it again: {command}"


def _for(owner: str, step: str) -> str:
    """A step in the words for its receiver: nobody tells himself."""
    return step.replace(TELL_THE_TEAM, YOURS) if owner in {"", NOBODY} else step


def _again(subject: str | None, problems: Sequence[Problem]) -> str:
    """The command that makes the days of a dataset again; a subject without days is made otherwise.

    A command for each stretch of days without gaps: one over all would also make days that failed for another reason.
    """
    days = sorted({problem.partition for problem in problems if problem.partition is not None})
    subjects = {problem.subject for problem in problems}
    told = any(COMMAND in problem.next_step for problem in problems)
    if told or not days or any(each.count("/") != 1 for each in subjects):
        return ""
    again = "it" if len(days) == 1 and subject else "them"
    key = subject or "DATASET"
    each = "" if subject else ", each by its name below for DATASET"
    stretches, between = _stretches(days), ""
    if len(stretches) > REASONS_SHOWN:
        stretches = [(days[0], days[-1])]
        between = " (the days between are made again, too, which is safe)"
    commands = "; ".join(f"{COMMAND} {key} --from {first} --to {last}" for first, last in stretches)
    return f"Then make {again} again{each}: {commands}{between}"


def _stretches(days: Sequence[str]) -> list[tuple[str, str]]:
    """Sorted days as stretches without gaps, by their ends."""
    stretches: list[tuple[str, str]] = []
    for day in days:
        if stretches and _is_range(stretches[-1][1], day, 2):
            stretches[-1] = (stretches[-1][0], day)
        else:
            stretches.append((day, day))
    return stretches


def _where(problems: Sequence[Problem], dagster_url: str | None) -> list[str]:
    runs = list(dict.fromkeys(problem.run_id for problem in problems if problem.run_id))
    if not runs:
        return []
    shown = [f"{dagster_url.rstrip('/')}/runs/{run}" if dagster_url else f"run {run}" for run in runs[:REASONS_SHOWN]]
    more = [f"and {len(runs) - REASONS_SHOWN} more"] if len(runs) > REASONS_SHOWN else []
    return ["See the run: " + ", ".join([*shown, *more])]


def _why_you(owner: str, subject: str | None) -> str:
    if owner in {"", NOBODY}:
        return "Sent to you because nobody else is named for it: see * in DATA_PLATFORM_ALERT_ROUTES."
    if subject is None:
        return f"Sent to {owner}, who owns them in the data platform's catalogue (catalog/)."
    file = f"catalog/datasets/{subject}.yaml" if subject.count("/") == 1 else "catalog/"
    return f"Sent to {owner}, who owns {subject} in the data platform's catalogue ({file})."
