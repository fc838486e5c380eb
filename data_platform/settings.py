"""Environment -> one typed, frozen Settings object. No I/O but the environment and the embedded cloud's env file.

What belongs here: names, types, defaults, the sentence that documents each. What does not: clients, decisions.
"""

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from data_platform.errors import ConfigurationError

PREFIX = "DATA_PLATFORM_"
# Any of these in the environment means that somebody chose the engines: the embedded cloud's file is then not read,
# so a half-set environment can never mix production with the embedded engines.
ENDPOINT_VARIABLES = (
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "CLICKHOUSE_HOST",
    "REDSHIFT_HOST",
    "KAFKA_BOOTSTRAP_SERVERS",
    "POSTGRES_URL",
)
_PACKAGE = Path(__file__).resolve().parent


def _shipped_catalog() -> Path:
    checkout = _PACKAGE.parent / "catalog"
    return checkout if (checkout / "domains.yaml").is_file() else _PACKAGE / "_catalog"


def _setting(
    group: str,
    description: str,
    default: Any = None,
    *,
    variable: str | tuple[str, ...] = (),
    factory: Callable[[], Any] | None = None,
    shown: str | None = None,
    **constraints: Any,
) -> Any:
    """One setting: its group in the documentation, its sentence, its default, its variable if not DATA_PLATFORM_*.

    `shown` is the default as the documentation tells it, where the value itself depends on the machine.
    """
    names = (variable,) if isinstance(variable, str) else variable
    if names:
        constraints["validation_alias"] = AliasChoices(*names)
    if factory is not None:
        constraints["default_factory"] = factory
    else:
        constraints["default"] = default
    extra: dict[str, Any] = {"group": group} if shown is None else {"group": group, "shown": shown}
    constraints |= {"description": description, "json_schema_extra": extra}
    return Field(**constraints)


class Settings(BaseSettings):
    """Every setting of the platform. `load_settings()` makes it; `data-platform settings` prints it masked."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    # General
    env: str = _setting(
        "General",
        "Environment name; the prefix of queues, rules and alarms.",
        "dev",
        pattern=r"^[a-z][a-z0-9-]{0,30}$",
    )
    home: Path = _setting("General", "State folder of the embedded cloud and of local runs.", Path(".local"))
    catalog: Path = _setting(
        "General",
        "Folder of the catalogue's YAML files.",
        factory=_shipped_catalog,
        shown="the catalog/ that is shipped",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _setting("General", "Level of the logs.", "INFO")
    log_format: Literal["text", "json"] = _setting("General", "Form of the log lines.", "text")

    # AWS
    aws_endpoint_url: str | None = _setting(
        "AWS", "Endpoint of an AWS stand-in; unset: AWS itself.", variable="AWS_ENDPOINT_URL"
    )
    aws_access_key_id: SecretStr | None = _setting(
        "AWS", "Key id; unset: boto3's own chain (role, profile).", variable="AWS_ACCESS_KEY_ID"
    )
    aws_secret_access_key: SecretStr | None = _setting("AWS", "Secret of the key id.", variable="AWS_SECRET_ACCESS_KEY")
    aws_session_token: SecretStr | None = _setting(
        "AWS", "Session token of temporary credentials.", variable="AWS_SESSION_TOKEN"
    )
    aws_region: str | None = _setting("AWS", "Region.", variable=("AWS_DEFAULT_REGION", "AWS_REGION"))
    raw_bucket: str = _setting("AWS", "Bucket of raw data: OTel logs, CSV drops.", "data-platform-raw")
    curated_bucket: str = _setting("AWS", "Bucket of curated Parquet and of the summaries.", "data-platform-curated")
    unload_bucket: str = _setting("AWS", "Bucket of UNLOAD results.", "data-platform-unload")
    alarm_topic: str | None = _setting(
        "AWS",
        "SNS topic (ARN) the alarms are sent to; unset: alarms change their state and tell nobody.",
        pattern=r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[\w.-]+$",
    )

    # Redshift
    redshift_host: str | None = _setting("Redshift", "Host name.", variable="REDSHIFT_HOST")
    redshift_port: int = _setting("Redshift", "Port.", 5439, variable="REDSHIFT_PORT", ge=1, le=65535)
    redshift_database: str = _setting("Redshift", "Database.", "dev", variable="REDSHIFT_DATABASE")
    redshift_user: str | None = _setting("Redshift", "User.", variable="REDSHIFT_USER")
    redshift_password: SecretStr | None = _setting("Redshift", "Password.", variable="REDSHIFT_PASSWORD")
    redshift_ssl: bool = _setting("Redshift", "Connect with TLS and verify the certificate.", True)
    redshift_unload_role: str = _setting(
        "Redshift",
        "IAM role of UNLOAD (ARN, or 'default').",
        "default",
        pattern=r"^(default|arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+)$",
    )
    redshift_query_group: str = _setting("Redshift", "Query group set in every session.", "data-platform")
    redshift_statement_timeout_s: int = _setting(
        "Redshift", "Longest statement, in seconds; Redshift cancels it then.", 3600, ge=1
    )

    # Unload
    unload_max_rows: int = _setting(
        "Unload", "Rows one request may unload; the query is cancelled past it.", 1_000_000_000, ge=1
    )
    unload_max_mb: int = _setting(
        "Unload", "Size of one result, in MiB; the query is cancelled past it.", 102_400, ge=1
    )
    unload_max_seconds: int = _setting("Unload", "Longest query of one request, in seconds.", 3600, ge=1)
    unload_lease_s: float = _setting(
        "Unload", "Lease on a running request, in seconds; the reconciler takes it from a dead worker then.", 20.0, ge=1
    )
    unload_link_s: int = _setting("Unload", "Longest life of a download link, in seconds.", 3600, ge=60, le=604_800)
    unload_listener_group: str = _setting("Unload", "Consumer group of the listener.", "unload-notifier")
    unload_slack_webhook: SecretStr | None = _setting(
        "Unload", "Slack webhook told of DONE and FAILED requests; unset: none is told."
    )
    unload_mail_from: str | None = _setting("Unload", "Sender of notices by e-mail (SES); unset: none are sent.")
    unload_mail_to: str | None = _setting("Unload", "Receivers of notices by e-mail, separated by commas.")
    api_url: str = _setting("Unload", "Where `data-platform unload` finds the API.", "http://127.0.0.1:8080")
    api_token: SecretStr | None = _setting("Unload", "Bearer token of `data-platform unload`.")

    # ClickHouse
    clickhouse_host: str | None = _setting("ClickHouse", "Host name.", variable="CLICKHOUSE_HOST")
    clickhouse_port: int = _setting(
        "ClickHouse", "HTTP port (8443 with TLS).", 8443, variable="CLICKHOUSE_PORT", ge=1, le=65535
    )
    clickhouse_user: str = _setting("ClickHouse", "User.", "default", variable="CLICKHOUSE_USER")
    clickhouse_password: SecretStr = _setting("ClickHouse", "Password.", SecretStr(""), variable="CLICKHOUSE_PASSWORD")
    clickhouse_secure: bool = _setting("ClickHouse", "Connect with TLS.", True)
    clickhouse_s3_collection: str | None = _setting(
        "ClickHouse",
        "Named collection by which ClickHouse reads S3; unset: the server's own role.",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
    )
    clickhouse_s3_endpoint: str | None = _setting(
        "ClickHouse",
        "S3 endpoint as ClickHouse reaches it; unset: AWS_ENDPOINT_URL, else AWS of the region.",
    )
    clickhouse_cluster: str | None = _setting(
        "ClickHouse", "Cluster name: DDL ON CLUSTER, Replicated engines, s3Cluster.", pattern=r"^[\w.{}-]+$"
    )
    clickhouse_timeout_s: int = _setting("ClickHouse", "Longest wait for one answer, in seconds.", 300, ge=1)

    # Loader
    loader_lease_s: float = _setting(
        "Loader", "Lease on a table partition, in seconds; a killed worker's partition is free after it.", 30.0, ge=1
    )
    loader_rebuild_memory_mb: int = _setting(
        "Loader", "max_memory_usage of one insert of a rebuild, in MiB.", 4096, ge=64
    )

    loader_metrics_port: int = _setting(
        "Loader", "Loopback port of the agent's Prometheus metrics; 0: none.", 9464, ge=0, le=65535
    )
    loader_gone_to_dlq: bool = _setting(
        "Loader", "Dead-letter an object that is gone (E008); otherwise it is counted and its message deleted.", False
    )

    # Metrics
    min_data_date: date | None = _setting(
        "Metrics", "First day the metrics take in, for services whose catalogue entry names none; unset: all days."
    )

    metrics_engine: Literal["clickhouse", "athena"] = _setting(
        "Metrics",
        "Where the metrics of a service are computed whose catalogue entry names no engine.",
        "clickhouse",
    )

    # Athena
    athena_workgroup: str = _setting("Athena", "Workgroup of the queries.", "primary", pattern=r"^[\w.-]{1,128}$")
    athena_database: str = _setting(
        "Athena", "Glue database of the tables and building blocks.", "log_db", pattern=r"^[a-z_][a-z0-9_]*$"
    )
    athena_output: str | None = _setting(
        "Athena",
        "Where query results (athena/) and tables (summary/) go, s3://bucket[/prefix]; unset: the curated bucket.",
        pattern=r"^s3://[a-z0-9][a-z0-9.-]+(/[\w.=-]+)*$",
    )
    athena_concurrency: int = _setting(
        "Athena",
        "Queries the run of one service has at once; times the 10 slots of the pool `athena`, below the account's 25.",
        2,
        ge=1,
        le=25,
    )
    athena_timeout_s: int = _setting("Athena", "Longest query, in seconds; it is stopped then.", 1800, ge=1)
    athena_usd_per_tb: float = _setting("Athena", "Price of a TB scanned, in US dollars.", 5.0, ge=0)
    athena_budget_usd: float = _setting(
        "Athena", "A run that is estimated to cost more, in US dollars, is refused before its first query.", 5.0, gt=0
    )

    # Kafka
    kafka_bootstrap_servers: str | None = _setting(
        "Kafka", "Bootstrap servers, host:port[,host:port].", variable="KAFKA_BOOTSTRAP_SERVERS"
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"] = _setting(
        "Kafka", "Security protocol.", "PLAINTEXT"
    )
    kafka_sasl_mechanism: str | None = _setting("Kafka", "SASL mechanism, e.g. SCRAM-SHA-512.")
    kafka_username: str | None = _setting("Kafka", "SASL user.")
    kafka_password: SecretStr | None = _setting("Kafka", "SASL password.")
    kafka_replication: int = _setting("Kafka", "Replication factor of the topics that are made.", 3, ge=1)
    kafka_watched_groups: str = _setting(
        "Kafka", "Consumer groups whose lag is watched, as group:topic separated by commas.", "", pattern=r"^[\w.:,-]*$"
    )
    kafka_lag_limit: int = _setting(
        "Kafka", "Records a watched group may be behind before it is alerted.", 10_000, ge=1
    )
    kafka_unload_topic: str = _setting("Kafka", "Topic of the unload notices.", "unload-complete")

    # PostgreSQL and Dagster
    postgres_url: SecretStr | None = _setting(
        "PostgreSQL",
        "Ledgers and user_statistics, SQLAlchemy form: postgresql+psycopg://user:password@host/database.",
        variable="POSTGRES_URL",
    )
    dagster_home: Path | None = _setting(
        "Dagster", "Dagster's instance folder (holds dagster.yaml).", variable="DAGSTER_HOME"
    )
    dagster_postgres_url: SecretStr | None = _setting(
        "Dagster",
        "Dagster's own storage: postgresql://user:password@host/database.",
        variable="DAGSTER_POSTGRES_URL",
    )
    schedules: str = _setting(
        "Dagster",
        "Which schedules and sensors start by themselves: none, all, or their names separated by commas.",
        "none",
        pattern=r"^[a-z0-9_]+(,[a-z0-9_]+)*$",
    )
    dagster_url: str | None = _setting(
        "Dagster",
        "Address of Dagster's UI as people reach it; links in alerts begin with it.",
        pattern=r"^https?://\S+$",
    )
    lookback_days: int = _setting(
        "Dagster", "How many of the last days schedules repair and sensors compare with their source.", 7, ge=1, le=90
    )
    freshness_hours: float = _setting(
        "Dagster",
        "Hours after the end of a day until its rows must be visible, where the catalogue does not say otherwise.",
        36.0,
        gt=0,
    )

    # Alerts
    alert_routes: SecretStr | None = _setting(
        "Alerts",
        'Who is told, as JSON by owner, "*" for all others: {"team:a": {"slack": "https://...", "email": ["a@b.c"]}}. '
        "Unset: nobody.",
    )
    alert_sender: str | None = _setting(
        "Alerts",
        "Address e-mails are sent from, verified in SES; unset: no e-mail is sent.",
        pattern=r"^[^@\s]+@[^@\s]+$",
    )
    alert_per_minute: int = _setting(
        "Alerts", "Messages a Slack webhook gets in a minute; what is more waits for the next.", 6, ge=1, le=60
    )

    @field_validator("postgres_url")
    @classmethod
    def _sqlalchemy_form(cls, value: SecretStr | None) -> SecretStr | None:
        """The plain libpq scheme would select psycopg2; the platform speaks through psycopg 3."""
        if value is None:
            return None
        text = value.get_secret_value()
        for scheme in ("postgresql://", "postgres://"):
            if text.startswith(scheme):
                return SecretStr("postgresql+psycopg://" + text.removeprefix(scheme))
        if not text.startswith("postgresql+psycopg://"):
            message = "must begin with postgresql+psycopg:// (or postgresql://)"
            raise ValueError(message)
        return value

    def require(self, *fields: str) -> None:
        """Raise a ConfigurationError that names the variables of all unset `fields` at once."""
        missing = [variable_of(name) for name in fields if getattr(self, name) is None]
        if missing:
            raise ConfigurationError(
                f"not set: {', '.join(missing)}",
                hint='set it in the environment; or data-platform cloud up, then eval "$(data-platform cloud env)"',
            )


def variable_of(field: str) -> str:
    """The environment variable that sets `field` (the first, where several do)."""
    return variables_of(field)[0]


def variables_of(field: str) -> tuple[str, ...]:
    """All environment variables that set `field`; the first that is set counts."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (f"{PREFIX}{field.upper()}",)


def embedded_env_file(home: Path) -> Path:
    """Where `cloud up` leaves the variables of the running embedded cloud (NAME=value lines)."""
    return home / "cloud" / "env"


def load_settings() -> Settings:
    """Read the environment; where it names no engine, the embedded cloud that runs in DATA_PLATFORM_HOME.

    Raises ConfigurationError listing every value that does not fit, by variable name, without the value.
    """
    try:
        return Settings(_env_file=_env_file_in_force())  # pyright: ignore[reportCallIssue] - pydantic-settings' own argument
    except ValidationError as error:
        lines = [f"{_location(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        raise ConfigurationError(
            "settings do not fit:\n  " + "\n  ".join(lines), hint="docs/settings.md describes every variable"
        ) from None


def origin_of(settings: Settings, field: str) -> Literal["default", "environment", "embedded cloud"]:
    """Where the value of `field` came from, for settings made by `load_settings` in this environment."""
    if field not in settings.model_fields_set:
        return "default"
    return "environment" if any(os.environ.get(name) for name in variables_of(field)) else "embedded cloud"


def unknown_variables() -> list[str]:
    """Variables of the environment that begin like ours and set nothing: mostly a misspelt name."""
    known = {variable for field in Settings.model_fields for variable in variables_of(field)}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def _env_file_in_force() -> Path | None:
    """The embedded cloud's file, where it runs and the environment names no engine."""
    if any(os.environ.get(name) for name in ENDPOINT_VARIABLES):
        return None
    candidate = embedded_env_file(Path(os.environ.get(f"{PREFIX}HOME") or ".local"))
    return candidate if candidate.is_file() else None


def _location(location: tuple[int | str, ...]) -> str:
    name = str(location[0])
    return variable_of(name) if name in Settings.model_fields else name
