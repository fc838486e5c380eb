"""`data-platform dlq`: dead letters listed, shown, replayed, dropped."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_platform.cli.output import JsonOption, out, print_json, print_rows
from data_platform.errors import ConfigurationError, PlatformError
from data_platform.settings import Settings, load_settings

if TYPE_CHECKING:
    from data_platform.loading.deadletters import Held

app = typer.Typer(no_args_is_help=True)

DomainOption = Annotated[list[str] | None, typer.Option("--domain", help="Only this domain; may be repeated.")]
CodeOption = Annotated[list[str] | None, typer.Option("--code", help="Only this code, E001 to E008; may be repeated.")]
SinceOption = Annotated[datetime | None, typer.Option(help="Only letters of this time (UTC) or later.")]
UntilOption = Annotated[datetime | None, typer.Option(help="Only letters before this time (UTC).")]
IdOption = Annotated[list[str] | None, typer.Option("--id", help="Only the letter whose id begins so.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every letter that fits, none named.")]


@app.command("list")
def list_letters(
    domain: DomainOption = None,
    code: CodeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the dead letters, oldest first."""
    from data_platform.clients import aws
    from data_platform.loading.deadletters import let_go

    settings = load_settings()
    held = _select(settings, domain, code, since, until, None)
    let_go(aws.sqs(settings), settings, held)
    rows = [
        {
            "domain": each.domain,
            "id": each.id if as_json else each.id[:8],
            "code": each.letter.code,
            "key": each.letter.key,
            "attempts": each.letter.attempts,
            "last_at": each.letter.last_at[:19],
            "reason": each.letter.reason if as_json else each.letter.reason[:100],
            "next_step": each.letter.next_step,
        }
        for each in sorted(held, key=lambda each: each.letter.last_at)
    ]
    print_rows(rows, as_json=as_json, title="dead letters")


@app.command()
def show(
    identifier: Annotated[str, typer.Argument(help="The beginning of its id.")], as_json: JsonOption = False
) -> None:
    """Show one dead letter with its original message."""
    from data_platform.clients import aws
    from data_platform.loading.deadletters import let_go, only_one

    settings = load_settings()
    held = _select(settings, None, None, None, None, None)
    let_go(aws.sqs(settings), settings, held)
    found = only_one(held, identifier)
    data = {"domain": found.domain, "id": found.id, **vars(found.letter), "next_step": found.letter.next_step}
    if as_json:
        print_json(data)
        return
    for name, value in data.items():
        out.print(f"{name:>15}: {value}", markup=False, soft_wrap=True)


@app.command(epilog="Example: data-platform dlq replay --domain market")
def replay(
    domain: DomainOption = None,
    code: CodeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    identifier: IdOption = None,
    everything: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """Send the original messages to their load queues again: through the same door, with new attempts."""
    from data_platform.clients import aws
    from data_platform.loading import deadletters

    settings = load_settings()
    _require_choice(domain, code, since, until, identifier, everything=everything)
    held = _select(settings, domain, code, since, until, identifier)
    count = deadletters.replay(aws.sqs(settings), settings, held)
    _told("replayed", count, as_json=as_json)


@app.command()
def drop(
    domain: DomainOption = None,
    code: CodeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    identifier: IdOption = None,
    everything: AllOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete dead letters for ever."""
    from data_platform.clients import aws
    from data_platform.loading import deadletters

    settings = load_settings()
    sqs = aws.sqs(settings)
    _require_choice(domain, code, since, until, identifier, everything=everything)
    held = _select(settings, domain, code, since, until, identifier)
    if held and not yes and not typer.confirm(f"Delete {len(held)} dead letters for ever?", err=True):
        deadletters.let_go(sqs, settings, held)
        raise typer.Abort
    _told("dropped", deadletters.drop(sqs, settings, held), as_json=as_json)


def _told(what: str, count: int, *, as_json: bool) -> None:
    if as_json:
        print_json({what: count})
    else:
        out.print(f"{what} {count} dead letter{'' if count == 1 else 's'}")


def _require_choice(*choices: object, everything: bool) -> None:
    if not everything and not any(choices):
        raise PlatformError("which dead letters?", hint="--id, --domain, --code, --since, --until, or --all")


def _select(
    settings: Settings,
    domains: list[str] | None,
    codes: list[str] | None,
    since: datetime | None,
    until: datetime | None,
    identifiers: list[str] | None,
) -> "list[Held]":
    from data_platform.catalog import load_catalog
    from data_platform.clients import aws
    from data_platform.loading.deadletters import select

    catalog = load_catalog(settings.catalog)
    chosen_domains = domains or list(catalog.domains)
    unknown = sorted(set(chosen_domains) - set(catalog.domains))
    if unknown:
        raise ConfigurationError(f"no domain {', '.join(unknown)}", hint=f"domains: {', '.join(catalog.domains)}")

    def fits(held: Any) -> bool:
        at = held.letter.last_at[:19]
        return (
            (not codes or held.letter.code in codes)
            and (since is None or at >= since.isoformat()[:19])
            and (until is None or at < until.isoformat()[:19])
            and (not identifiers or any(held.id.startswith(each) for each in identifiers))
        )

    return select(aws.sqs(settings), settings, chosen_domains, fits)
