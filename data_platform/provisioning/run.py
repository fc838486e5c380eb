"""One provisioning run: which parts there are, in which order, what is skipped. The parts are modules of their own."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from data_platform.catalog import Catalog, load_catalog
from data_platform.errors import ConfigurationError, PlatformError
from data_platform.provisioning.report import ProvisionReport, Recorder
from data_platform.settings import Settings, variable_of


@dataclass(frozen=True)
class Part:
    """One engine's share: the setting without which it is skipped, and what makes it."""

    needs: str
    run: Callable[[Settings, Catalog, Recorder], None]


def _aws(settings: Settings, catalog: Catalog, recorder: Recorder) -> None:
    from data_platform.provisioning.alarms import provision_alarms
    from data_platform.provisioning.aws_calls import connect
    from data_platform.provisioning.buckets import bucket_plans, provision_bucket
    from data_platform.provisioning.metrics_alarms import provision_metrics_alarms
    from data_platform.provisioning.queue_alarms import provision_queue_alarms
    from data_platform.provisioning.queues import provision_route
    from data_platform.provisioning.routes import routes
    from data_platform.provisioning.unload_alarms import provision_unload_alarms

    clients = connect(settings)
    together(
        *(lambda plan=plan: provision_bucket(clients.s3, plan, recorder) for plan in bucket_plans(settings)),
        *(lambda route=route: provision_route(clients, route, recorder) for route in routes(settings, catalog)),
        lambda: provision_alarms(clients.cloudwatch, settings, catalog, recorder),
        lambda: provision_queue_alarms(clients.cloudwatch, settings, catalog, recorder),
        lambda: provision_unload_alarms(clients.cloudwatch, settings, recorder),
        lambda: provision_metrics_alarms(clients.cloudwatch, settings, recorder),
    )


def _athena(settings: Settings, catalog: Catalog, recorder: Recorder) -> None:
    from data_platform.provisioning.athena import provision_athena

    provision_athena(settings, catalog, recorder)


def _kafka(settings: Settings, catalog: Catalog, recorder: Recorder) -> None:
    from data_platform.provisioning.topics import provision_topics

    provision_topics(settings, catalog, recorder)


def _postgres(settings: Settings, catalog: Catalog, recorder: Recorder) -> None:
    from data_platform.provisioning.postgres import provision_postgres

    provision_postgres(settings, catalog, recorder)


def _clickhouse(settings: Settings, catalog: Catalog, recorder: Recorder) -> None:
    from data_platform.provisioning.clickhouse import provision_clickhouse

    provision_clickhouse(settings, catalog, recorder)


# A part is imported when it runs: each brings its engine's client with it.
PARTS: Mapping[str, Part] = {
    "aws": Part("aws_region", _aws),
    "athena": Part("aws_region", _athena),
    "kafka": Part("kafka_bootstrap_servers", _kafka),
    "postgres": Part("postgres_url", _postgres),
    "clickhouse": Part("clickhouse_host", _clickhouse),
}


def provision(
    settings: Settings,
    *,
    catalog: Catalog | None = None,
    report: Callable[[str], None] | None = None,
    only: Collection[str] | None = None,
    dry_run: bool = False,
) -> ProvisionReport:
    """Make everything the settings and the catalogue call for; what is already right is left alone.

    `report` is told one line per change, from several threads but one at a time. `only` names parts (PARTS).
    Raises PlatformError with all that failed, after every part has been tried; ConfigurationError for a wrong name.
    """
    unknown = sorted(set(only or ()) - set(PARTS))
    if unknown:
        raise ConfigurationError(f"no such part: {', '.join(unknown)}", hint=f"one of {', '.join(PARTS)}")
    catalog = catalog or load_catalog(settings.catalog)
    recorder = Recorder(dry_run=dry_run, tell=report)
    wanted: list[Callable[[], None]] = []
    for name, part in PARTS.items():
        if only is not None and name not in only:
            continue
        if getattr(settings, part.needs) is None:
            recorder.skip(name, f"{variable_of(part.needs)} not set")
            continue
        wanted.append(lambda part=part: part.run(settings, catalog, recorder))
    together(*wanted)
    return recorder.report()


def together(*calls: Callable[[], None]) -> None:
    """Make the calls at the same time; when some raise a PlatformError, raise one with all of them at the end."""
    if not calls:
        return
    with ThreadPoolExecutor(max_workers=len(calls), thread_name_prefix="provision") as pool:
        futures = [pool.submit(call) for call in calls]
    errors: list[PlatformError] = []
    for future in futures:
        error = future.exception()
        if isinstance(error, PlatformError):
            errors.append(error)
        elif error is not None:
            raise error
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise PlatformError("\n".join(dict.fromkeys(str(error) for error in errors)), fault=errors[0].fault)
