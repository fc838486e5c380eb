"""The application: calls, errors, limits, and the life of what finishes requests behind them."""

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from anyio.to_thread import current_default_thread_limiter, run_sync
from fastapi import FastAPI
from starlette.responses import HTMLResponse

from data_platform import __version__
from data_platform.api import problems
from data_platform.api.callers import Callers, schemas_of
from data_platform.api.limits import BodyLimit
from data_platform.api.page import page
from data_platform.api.routes import health_router, router
from data_platform.api.state import ApiState
from data_platform.api.statements import Statements
from data_platform.api.submissions import Submissions
from data_platform.catalog import Catalog
from data_platform.clients import aws, postgres
from data_platform.ledger import schema
from data_platform.settings import Settings
from data_platform.unload.guard import guard
from data_platform.unload.service import UnloadService

# Each waits for PostgreSQL most of its time; more than connections would only queue for those.
THREADS = 24
POOL_SIZE = 12
# Workers, relay and listener are threads beside the event loop: at Python's 5 ms a call waits that long for each of
# its steps whenever one of them computes.
SWITCH_S = 0.0005
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
TITLE = "Unload API"
DESCRIPTION = """Any allowed SELECT out of Redshift into files, by request id. Submit, poll or stream, fetch links.

Errors are `application/problem+json`. A request that was accepted comes to an end whatever happens to this process."""


def create_app(settings: Settings, catalog: Catalog, *, workers: int = 2) -> FastAPI:
    """The API with `workers` workers behind it. Nothing is connected before it is started."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None]:
        ledger = postgres.engine(settings, pool_size=POOL_SIZE)
        asking = postgres.engine(settings, pool_size=POOL_SIZE, pre_ping=False)
        await run_sync(schema.migrate, ledger)
        await run_sync(_import_what_calls_need)
        # What is there by now stays: the collector need not stop the process to look through it again and again.
        gc.collect()
        gc.freeze()
        current_default_thread_limiter().total_tokens = THREADS
        service = UnloadService(settings, ledger, workers=workers)
        ask = Statements(asking)
        submissions = Submissions(ask)
        app.state.api = ApiState(
            settings, ledger, ask, aws.s3(settings), Callers(ask, schemas_of(catalog)), submissions, service.wake
        )
        writing = asyncio.create_task(submissions.run())
        service.start()
        try:
            yield
        finally:
            app.state.api.ending = True
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
            await run_sync(service.stop)
            ledger.dispose()
            asking.dispose()

    app = FastAPI(
        title=TITLE,
        description=DESCRIPTION,
        version=__version__,
        lifespan=life,
        redirect_slashes=False,
        # The framework's pages load their scripts from another host.
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    app.add_middleware(BodyLimit)
    app.include_router(router)
    app.include_router(health_router)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:  # pyright: ignore[reportUnusedFunction]
        return HTMLResponse(page(app.openapi()), headers=PAGE_HEADERS)

    return app


def _import_what_calls_need() -> None:
    """Before the first call and not during it: the parser alone takes a quarter of a second."""
    import redshift_connector  # noqa: F401  # pyright: ignore[reportUnusedImport]

    guard("select 1 as warm", ())


def serve(app: FastAPI, host: str, port: int, *, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT: open calls get 4 s, queries 6 s, then what is left is handed back."""
    import uvicorn

    sys.setswitchinterval(SWITCH_S)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
            await super().startup(sockets)  # type: ignore[arg-type]
            if self.started:
                on_ready()

        async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
            app.state.api.ending = True  # streams end by themselves
            await super().shutdown(sockets)  # type: ignore[arg-type]

    config = uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=4, server_header=False
    )
    Server(config).run()
