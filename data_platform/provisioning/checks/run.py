"""Runs all checks at the same time and stops waiting at a deadline: a doctor that hangs is no doctor."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module

from data_platform.catalog import Catalog, CatalogError, load_catalog
from data_platform.errors import PlatformError
from data_platform.provisioning.checks.finding import Finding, failed, ok, warning
from data_platform.settings import Settings, unknown_variables, variable_of

DEADLINE_S = 9.0
Check = Callable[[Settings, Catalog], Iterator[Finding]]


def _aws(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    from data_platform.provisioning.checks.aws import check_aws

    return check_aws(settings, catalog)


def _redshift(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    from data_platform.provisioning.checks.databases import check_redshift

    return check_redshift(settings, catalog)


def _postgres(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    from data_platform.provisioning.checks.databases import check_postgres

    return check_postgres(settings, catalog)


def _dagster(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    from data_platform.provisioning.checks.databases import check_dagster

    return check_dagster(settings, catalog)


def _clickhouse(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    from data_platform.provisioning.checks.stores import check_clickhouse

    return check_clickhouse(settings, catalog)


def _kafka(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    from data_platform.provisioning.checks.stores import check_kafka

    return check_kafka(settings, catalog)


# engine -> (the setting without which it is not configured, its check); each imports its client when it runs
CHECKS: Mapping[str, tuple[str | None, Check]] = {
    "aws": ("aws_region", _aws),
    "redshift": ("redshift_host", _redshift),
    "postgres": ("postgres_url", _postgres),
    "clickhouse": ("clickhouse_host", _clickhouse),
    "kafka": ("kafka_bootstrap_servers", _kafka),
    "dagster": (None, _dagster),
}

# What each check spends its first second on; not counted against the engine, which has not been asked anything yet.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "aws": ("boto3",),
    "redshift": ("redshift_connector",),
    "postgres": ("psycopg", "sqlalchemy"),
    "clickhouse": ("clickhouse_connect",),
    "kafka": ("confluent_kafka.admin",),
    "dagster": ("psycopg", "sqlalchemy"),
}

# Where a client's own advice is to run this very command.
_HINTS = {"redshift": "is the cluster up and reachable? REDSHIFT_HOST, REDSHIFT_PORT right?"}


@dataclass
class _Patient:
    """One engine's check in its thread; what it has found so far counts even when it never ends."""

    name: str
    thread: threading.Thread | None = None
    findings: list[Finding] = field(default_factory=list[Finding])


def examine(settings: Settings, *, deadline_s: float = DEADLINE_S) -> list[Finding]:
    """All findings, engine by engine, within `deadline_s` seconds of asking; silence is a finding, too."""
    try:
        catalog = load_catalog(settings.catalog)
    except CatalogError as error:
        mistakes = f"{settings.catalog}: mistakes: {len(error.problems)}"
        return [failed("catalogue", mistakes, "data-platform catalog check")]
    findings = [ok("catalogue", f"{len(catalog.datasets)} datasets in {len(catalog.domains)} domains")]
    findings += [warning("settings", f"{name} sets nothing", "docs/settings.md") for name in unknown_variables()]
    configured = {name for name, (needs, _) in CHECKS.items() if needs and getattr(settings, needs) is not None}
    if not configured:
        findings.append(failed("settings", "no engine is configured", "data-platform cloud up, or docs/settings.md"))
        return findings
    for name, libraries in LIBRARIES.items():
        if name in configured or CHECKS[name][0] is None:
            for library in libraries:
                import_module(library)
    end = time.monotonic() + deadline_s
    patients: list[_Patient] = []
    for name, (needs, check) in CHECKS.items():
        patient = _Patient(name)
        patients.append(patient)
        if needs is not None and name not in configured:
            patient.findings.append(warning(name, f"not looked at: {variable_of(needs)} not set"))
            continue
        # Daemons: what hangs in a socket beyond the deadline must not keep the process alive.
        patient.thread = threading.Thread(target=partial(_examine, patient, check, settings, catalog), daemon=True)
        patient.thread.start()
    for patient in patients:
        if patient.thread is not None:
            patient.thread.join(max(0.0, end - time.monotonic()))
            if patient.thread.is_alive():
                detail = f"no answer within {deadline_s:.0f} s"
                patient.findings.append(failed(patient.name, detail, "is a firewall dropping packets? host and port?"))
        findings += list(patient.findings)
    return findings


def _examine(patient: _Patient, check: Check, settings: Settings, catalog: Catalog) -> None:
    try:
        for finding in check(settings, catalog):
            patient.findings.append(finding)
    except PlatformError as error:
        hint = _HINTS.get(patient.name) if error.hint in {None, "data-platform doctor"} else error.hint
        patient.findings.append(failed(patient.name, error.message, hint))
    except Exception as error:  # noqa: BLE001 - shown as failed: one engine's surprise must not hide the others' lines
        words = (str(error).strip().splitlines() or [""])[0]
        patient.findings.append(failed(patient.name, f"unexpected {type(error).__name__}: {words}"))
