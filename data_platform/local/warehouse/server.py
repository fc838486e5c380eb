"""The engine child `warehouse`: PostgreSQL and the Redshift front, started and stopped together."""

from data_platform.local.engine import EngineContext
from data_platform.local.warehouse.front import Front
from data_platform.local.warehouse.postgres import PostgresServer
from data_platform.local.warehouse.provision import PASSWORD, USER, WAREHOUSE, provision
from data_platform.local.warehouse.unload.contract import FAULT_KINDS as UNLOAD_FAULT_KINDS

UNLOAD_ROLE = "arn:aws:iam::000000000000:role/redshift-unload"


class Warehouse:
    """See data_platform.local.engine.Engine."""

    NAME = "warehouse"
    PORTS = ("redshift", "postgres")
    NEEDS = ("aws",)
    FAULT_KINDS = UNLOAD_FAULT_KINDS

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
        self._front = Front(redshift, postgres, context.faults)
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
