"""Two questions for work that speaks to several engines: what is this error, and what may be done about it.

Each client's own module knows its errors; here is only who is asked.
"""

from data_platform.errors import Fault, PlatformError


def classify(error: BaseException) -> Fault:
    """The fault of an error of any client; UNKNOWN for one that comes from none of them, which is a bug of ours."""
    from data_platform.clients import aws, clickhouse, postgres, redshift

    if isinstance(error, PlatformError):
        return error.fault
    match type(error).__module__.partition(".")[0]:
        case "botocore" | "boto3" | "s3transfer":
            return aws.classify(error)
        case "clickhouse_connect" | "urllib3":
            return clickhouse.classify(error)
        case "redshift_connector":
            return redshift.classify(error)
        case "sqlalchemy" | "psycopg" | "psycopg2":
            return postgres.classify(error)
        case "dagster_postgres":  # Dagster's own database: it tried several times; the last error is the cause
            return Fault.UNKNOWN if error.__cause__ is None else classify(error.__cause__)
        case _:
            return Fault.UNKNOWN


SYSTEMS = {
    "botocore": "AWS",
    "boto3": "AWS",
    "s3transfer": "AWS",
    "clickhouse_connect": "ClickHouse",
    "urllib3": "ClickHouse",
    "redshift_connector": "Redshift",
    "sqlalchemy": "PostgreSQL",
    "psycopg": "PostgreSQL",
    "psycopg2": "PostgreSQL",
    "dagster_postgres": "Dagster's PostgreSQL",
}


def explain(error: BaseException) -> str:
    """What failed: our own errors with their hint, foreign ones on a line, with the system they are of."""
    if isinstance(error, PlatformError):
        return str(error)
    system = SYSTEMS.get(type(error).__module__.partition(".")[0])
    said = getattr(error, "orig", None) or error  # SQLAlchemy adds the statement and a link for programmers
    text = f"{type(error).__name__}: {' '.join(str(said).split())}"
    return text if system is None else f"{system}: {text}"
