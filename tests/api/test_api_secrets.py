"""No password, key, token or signature in any log, error, event or row, after requests that went well and badly."""

import time
import urllib.request
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from data_platform.clients import kafka
from data_platform.local.cloud import Cloud

TABLES = ("unload_requests", "unload_attempts", "unload_changes", "outbox", "api_tokens", "dataset_unloads")


def records(cloud: Cloud, request_id: str) -> list[str]:
    """Everything on the topic, with headers, once the request's own event is there."""
    consumer = kafka.consumer(cloud.settings, f"secrets-{uuid4().hex}", cloud.settings.kafka_unload_topic)
    found: list[str] = []
    deadline = time.monotonic() + 60
    while not any(request_id in each for each in found):
        assert time.monotonic() < deadline, "the event is not on the topic"
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            found.append(f"{message.key()} {message.value()} {message.headers()}")
    consumer.close()
    return found


@pytest.mark.security
def test_no_secret_is_written_anywhere(client: Any, api: Any, cloud: Cloud, ledger: sa.Engine) -> None:
    texts: list[str] = []
    done = client.unload("select id from market.api_rows")
    texts.append(str(done))
    texts.append(str(client.unload("select * from market.nope")))
    for kind in ("unload.refuse_role", "redshift.drop_connection", "redshift.error"):
        name = f"s{uuid4().hex[:8]}"
        match = {"query": f"*{name}*"} if kind.startswith("unload") else {"sql": f"UNLOAD*{name}*"}
        fault = cloud.faults("warehouse").arm(kind, match=match)
        texts.append(str(client.unload(f"select id as {name} from market.api_rows")))
        assert cloud.faults("warehouse").struck(fault) == 1
    links = client.get(f"/api/unload/file/{done['requestId']}").body["files"]
    signatures = [part for part in links[0]["url"].split("&") if "ignature=" in part]
    assert signatures
    for path, body in (("/api/unload", {"requestId": "x", "sql": "select pg_sleep(1)"}), ("/api/unload", {})):
        texts.append(str(client.call("POST", path, body).body))
    with ledger.connect() as connection:
        for table in TABLES:
            texts += [str(tuple(row)) for row in connection.execute(sa.text(f"SELECT * FROM {table}"))]
    texts.append(api.log.read_text())
    request = urllib.request.Request(
        f"{client.url}/api/unload/{done['requestId']}/events", headers={"Authorization": f"Bearer {client.token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        texts.append(response.read().decode())
    texts += records(cloud, done["requestId"])
    texts += [path.read_text(errors="replace") for path in (cloud.home / "cloud" / "logs").glob("*.log")]
    settings = cloud.settings
    secrets = [
        client.token,
        settings.redshift_password.get_secret_value(),  # type: ignore[union-attr]
        settings.postgres_url.get_secret_value(),  # type: ignore[union-attr]
        *(signature.partition("=")[2] for signature in signatures),
        "AWSAccessKeyId=",
        "X-Amz-Credential",
    ]
    everything = "\n".join(texts)
    assert len(everything) > 1000
    for secret in secrets:
        assert len(secret) > 3
        assert secret not in everything, f"{secret[:4]}..."
