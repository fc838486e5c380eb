"""`data-platform api`: the unload API with its workers, complete by itself; `api token`: who may call it."""

import contextlib
import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated

import typer

from data_platform.cli.output import JsonOption, err, out, print_json, print_rows
from data_platform.errors import PlatformError
from data_platform.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

app = typer.Typer(invoke_without_command=True, help="The unload API; `api token` manages who may call it.")
token_app = typer.Typer(no_args_is_help=True, help="Bearer tokens of callers.")
app.add_typer(token_app, name="token")


@app.callback()
def api(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Unloads at once in this process.")] = 2,
) -> None:
    """Serve until SIGTERM or Ctrl-C. Workers, reconciler, outbox relay and listener run in this process."""
    if context.invoked_subcommand is not None:
        return
    from data_platform.api.app import create_app, serve
    from data_platform.catalog import load_catalog

    settings = load_settings()
    settings.require("postgres_url", "redshift_host")
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    application = create_app(settings, load_catalog(settings.catalog), workers=workers)
    _check_free(host, port)

    def ready() -> None:
        err.print(f"unload API on http://{host}:{port}, {workers} workers; calls: /docs", markup=False)

    # The server has shut down in order by then; the signal is raised once more for whoever waits for it.
    with contextlib.suppress(KeyboardInterrupt):
        serve(application, host, port, on_ready=ready)


@token_app.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="The caller's name.")],
    schema: Annotated[
        list[str] | None, typer.Option("--schema", help="May read this schema; default: the catalogue's domains.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Calls a second.")] = 50,
    burst: Annotated[int, typer.Option(min=1, help="Calls at once.")] = 200,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests that run at once; more wait.")] = 10,
    max_open: Annotated[int, typer.Option(min=1, help="Requests that wait or run; more are refused.")] = 1000,
    daily: Annotated[int | None, typer.Option(min=1, help="Requests in 24 hours; default: no quota.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token. It is shown once, on the last line; only its hash is kept."""
    from data_platform.ledger import api_tokens

    limits = api_tokens.Limits(rate, burst, concurrency, max_open, daily)
    schemas = None if schema is None else tuple(each.lower() for each in schema)
    with _ledger() as connection:
        token = api_tokens.create(connection, name, schemas=schemas, limits=limits)
    if as_json:
        print_json({"name": name, "token": token})
        return
    err.print(f"token of {name}; keep it, it is not shown again", markup=False)
    typer.echo(token)


@token_app.command("list")
def list_tokens(as_json: JsonOption = False) -> None:
    """List all tokens, without the tokens themselves."""
    from data_platform.ledger import api_tokens

    with _ledger() as connection:
        tokens = api_tokens.every(connection)
    print_rows(
        [
            {
                "name": token.name,
                "schemas": "of the catalogue" if token.schemas is None else ", ".join(token.schemas),
                "calls_per_s": token.limits.requests_per_s,
                "burst": token.limits.burst,
                "concurrency": token.limits.concurrency,
                "max_open": token.limits.max_open,
                "daily": token.limits.daily_requests,
                "created": token.created_at.isoformat(timespec="seconds"),
                "revoked": None if token.revoked_at is None else token.revoked_at.isoformat(timespec="seconds"),
            }
            for token in tokens
        ],
        as_json=as_json,
        title="tokens",
    )


@token_app.command("revoke")
def revoke_token(name: Annotated[str, typer.Argument(help="The caller's name.")]) -> None:
    """Revoke a token, within a second. Requests that were accepted go on."""
    from data_platform.ledger import api_tokens

    with _ledger() as connection:
        revoked = api_tokens.revoke(connection, name)
    if not revoked:
        raise PlatformError(f"there is no token {name} in force", hint="data-platform api token list")
    out.print(f"{name} may not call any more", markup=False)


@contextlib.contextmanager
def _ledger() -> Generator["Connection"]:
    """A transaction on the ledger, at its newest schema. Raises PlatformError saying why it cannot be reached."""
    from sqlalchemy.exc import IntegrityError, OperationalError

    from data_platform.clients import postgres
    from data_platform.ledger import schema

    engine = postgres.engine(load_settings(), pool_size=1)
    try:
        schema.migrate(engine)
        with engine.begin() as connection:
            yield connection
    except OperationalError as error:
        raise PlatformError(
            f"the ledger cannot be reached: {str(error.orig).strip().splitlines()[0]}",
            hint="data-platform doctor",
            fault=postgres.classify(error),
        ) from None
    except IntegrityError:
        raise PlatformError("the name may have letters, digits, dot, underscore, hyphen; at most 64") from None
    finally:
        engine.dispose()


def _check_free(host: str, port: int) -> None:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PlatformError(
                f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another: --port"
            ) from None
