"""What the embedded Athena works with, put together: clients of its own endpoint, moto's workgroups, the blobs."""

import threading
from collections.abc import Mapping
from typing import Any, cast

from moto.athena.models import athena_backends
from moto.core.models import DEFAULT_ACCOUNT_ID

from data_platform.local.aws.athena.errors import RequestError
from data_platform.local.aws.athena.executions import Executions
from data_platform.local.aws.athena.statement import Scope
from data_platform.local.aws.athena.tables import REGION
from data_platform.local.aws.blobs import BlobStore
from data_platform.local.faults import FaultBoard


def executions_of(endpoint: str, access_key: str, secret_key: str, blobs: BlobStore, faults: FaultBoard) -> Executions:
    """The queries of an engine that serves at `endpoint`; nothing is called before the first query."""
    clients: dict[str, Any] = {}
    lock = threading.Lock()

    def client(service: str) -> Any:
        import boto3
        from botocore.config import Config

        with lock:
            if service not in clients:
                session = boto3.session.Session(
                    aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name=REGION
                )
                clients[service] = session.client(
                    cast("Any", service), endpoint_url=endpoint, config=Config(max_pool_connections=10)
                )
            return clients[service]

    def workgroup(name: str) -> Mapping[str, Any]:
        known = athena_backends[DEFAULT_ACCOUNT_ID][REGION].work_groups.get(name)
        if known is None:
            raise RequestError("InvalidRequestException", f"WorkGroup {name} is not found.")
        return known.configuration or {}

    return Executions(Scope(client, workgroup, blobs.path), faults)
