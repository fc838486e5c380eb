"""The engine child `warehouse`: PostgreSQL and the Redshift front, started and stopped together."""

from data_platform.local.engine import EngineContext
from data_platform.local.warehouse.front import Front
from data_platform.local.warehouse.interference import FAULT_KINDS as FRONT_FAULT_KINDS
from data_platform.local.warehouse.postgres import PostgresServer
from data_platform.local.warehouse.provision import PASSWORD, USER, WAREHOUSE, provision, superuser_dsn
from data_platform.local.warehouse.unload.contract import FAULT_KINDS as UNLOAD_FAULT_KINDS
from data_platform.local.warehouse.unload.contract import UnloadEnvironment

UNLOAD_ROLE = "arn:aws:iam::000000000000:role/redshift-unload"


class Warehouse:
    """See data_platform.local.engine.Engine."""

    NAME = "warehouse"
    PORTS = ("redshift", "postgres")
    NEEDS = ("aws",)
    FAULT_KINDS = (*FRONT_FAULT_KINDS, *UNLOAD_FAULT_KINDS)

    def __init__(self) -> None:
        self._postgres: PostgresServer | None = None
        self._front: Front | None = None

    def start(self, context: EngineContext) -> dict[str, str]:
        """PostgreSQL, what it holds, then the front."""
        postgres = context.ports["postgres"]
        redshift = context.ports["redshift"]
        self._postgres = PostgresServer(context.state, postgres)
        self._postgres.start()
        provision(self._postgres)
        dsn = superuser_dsn(self._postgres, WAREHOUSE)
        self._front = Front(redshift, postgres, context.faults, dsn, _unload_environment(context))
        self._front.start()
        login = f"{USER}:{PASSWORD}@127.0.0.1:{postgres}"
        return {
            "REDSHIFT_HOST": "127.0.0.1",
            "REDSHIFT_PORT": str(redshift),
            "REDSHIFT_DATABASE": WAREHOUSE,
            "REDSHIFT_USER": USER,
            "REDSHIFT_PASSWORD": PASSWORD,
            "DATA_PLATFORM_REDSHIFT_SSL": "false",
            "DATA_PLATFORM_REDSHIFT_UNLOAD_ROLE": UNLOAD_ROLE,
            "POSTGRES_URL": f"postgresql+psycopg://{login}/data_platform",
            "DAGSTER_POSTGRES_URL": f"postgresql://{login}/dagster",
        }

    def stop(self) -> None:
        """The front first, so that no session sees its back-end go."""
        if self._front is not None:
            self._front.stop()
        if self._postgres is not None:
            self._postgres.stop()


def _unload_environment(context: EngineContext) -> UnloadEnvironment | None:
    """S3 as the engine `aws` told it; None when the warehouse runs alone."""
    env: dict[str, str] = context.options.get("env", {})
    if "AWS_ENDPOINT_URL" not in env:
        return None
    return UnloadEnvironment(
        s3_endpoint=env["AWS_ENDPOINT_URL"],
        access_key_id=env["AWS_ACCESS_KEY_ID"],
        secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region=env["AWS_DEFAULT_REGION"],
        faults=context.faults,
    )
