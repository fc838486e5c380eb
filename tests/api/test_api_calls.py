"""Every call, option, state and code of the unload API, over HTTP against the running process."""

import csv
import gzip
import io
import json
import re
import time
import urllib.request
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from data_platform.ledger.unloads import unload_requests
from data_platform.local.cloud import Cloud

QUERY = "select id, name, grp from market.api_rows"


def as_caller(client: Any, token: str | None) -> Any:
    return replace(client, token=token)


def fetch(file: dict[str, Any]) -> bytes:
    with urllib.request.urlopen(file["url"], timeout=20) as response:
        data = response.read()
        assert response.headers["Content-Disposition"] == f'attachment; filename="{file["name"]}"'
    assert len(data) == file["bytes"]
    return data


def test_default_is_what_a_person_downloads(client: Any) -> None:
    state = client.unload(QUERY)
    assert (state["status"], state["rows"], state["error"]) == ("DONE", 1000, None)
    assert len(state["files"]) == 1
    assert state["s3FileUrl"].startswith("https://data-platform-unload.s3.amazonaws.com/unload-results/")
    assert state["s3FileUrl"].endswith(".csv.gz")
    [file] = client.get(f"/api/unload/file/{state['requestId']}").body["files"]
    assert file["name"] == f"{state['requestId']}.csv.gz"
    assert (file["rows"], file["bytes"]) == (1000, state["bytes"])
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(fetch(file)).decode())))
    assert {row["name"] for row in rows if row["id"] == "7"} == {"it's \\ \"7 ö😀"}
    created, done, expires = (datetime.fromisoformat(state[n]) for n in ("createdAt", "completedAt", "expiresAt"))
    assert created <= datetime.fromisoformat(state["startedAt"]) <= done
    assert expires - done == timedelta(days=7)
    assert all(state[name].endswith("Z") for name in ("createdAt", "startedAt", "completedAt", "expiresAt"))


@pytest.mark.parametrize(
    ("options", "suffix"),
    [
        ({"format": "csv", "header": False, "delimiter": "|", "compression": "none"}, ".csv"),
        ({"format": "csv", "compression": "zstd"}, ".csv.zst"),
        ({"format": "csv", "compression": "bzip2", "nullAs": "NULL"}, ".csv.bz2"),
        ({"format": "json"}, ".json.gz"),
        ({"format": "json", "compression": "none"}, ".json"),
        ({"format": "legacy"}, ".txt.gz"),
        ({"format": "legacy", "compression": "none", "header": True}, ".txt"),
        ({"format": "parquet", "maxFileSizeMb": 32}, ".parquet"),
        ({"parallel": True}, ".csv.gz"),
        ({"partitionBy": ["grp"]}, ".csv.gz"),
        ({"region": "us-east-1"}, ".csv.gz"),
    ],
)
def test_each_option_gives_all_rows(client: Any, options: dict[str, Any], suffix: str) -> None:
    state = client.unload(QUERY, **options)
    assert (state["status"], state["rows"]) == ("DONE", 1000), state
    files = client.get(f"/api/unload/file/{state['requestId']}").body["files"]
    assert sum(file["rows"] for file in files) == 1000
    assert all(file["name"].endswith(suffix) for file in files)
    assert len({file["name"] for file in files}) == len(files)
    assert (state["s3FileUrl"] is None) == (len(files) > 1)
    if options.get("parallel") or options.get("partitionBy"):
        assert len(files) > 1
    if suffix == ".parquet":
        assert pq.read_table(io.BytesIO(fetch(files[0]))).num_rows == 1000
    if suffix == ".csv":
        assert fetch(files[0]).decode().splitlines()[0].count("|") == 2


def test_empty_result_is_done_without_files(client: Any) -> None:
    state = client.unload(f"{QUERY} where id < 0", format="parquet")
    assert (state["status"], state["rows"], state["bytes"], state["files"]) == ("DONE", 0, 0, [])
    assert state["s3FileUrl"] is None
    assert client.get(f"/api/unload/file/{state['requestId']}").body == {"files": []}


def test_same_id_and_body_is_one_request_and_another_body_a_conflict(client: Any, new_client: Any) -> None:
    name = f"r-{uuid4().hex}"
    assert client.submit(QUERY, name).status == 202
    again = client.submit(QUERY, name)
    assert (again.status, again.body["requestId"]) == (200, name)
    assert client.call("POST", "/api/unload", {"requestId": name, "query": QUERY, "format": "csv"}).status == 200
    assert client.submit(f"{QUERY} where id = 1", name).status == 409
    assert client.submit(QUERY, name, header=False).status == 409
    other = new_client()
    assert other.submit(QUERY, name).status == 409
    assert {other.get(f"/api/unload{path}/{name}").status for path in ("", "/status", "/file")} == {404}
    assert other.get(f"/api/unload/{name}/events").status == 404
    assert {other.call("POST", f"/api/unload/{name}/{what}").status for what in ("cancel", "retry")} == {409}
    assert client.wait(name)["status"] == "DONE"
    with_events = [change for change in changes(client, name) if change["status"] == "RUNNING"]
    assert len(with_events) == 1


def changes(client: Any, request_id: str) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{client.url}/api/unload/{request_id}/events", headers={"Authorization": f"Bearer {client.token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        text = response.read().decode()
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def test_events_tell_each_change_and_resume_where_they_broke_off(client: Any) -> None:
    accepted = client.submit(QUERY).body["requestId"]
    told = changes(client, accepted)
    assert [change["status"] for change in told] == ["PENDING", "RUNNING", "DONE"]
    request = urllib.request.Request(
        f"{client.url}/api/unload/{accepted}/events", headers={"Authorization": f"Bearer {client.token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        ids = [line.split(b": ")[1].strip() for line in response if line.startswith(b"id: ")]
    request.add_header("Last-Event-ID", ids[1].decode())
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.read().count(b"event: state") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"requestId": "a/b"},
        {"requestId": ".."},
        {"requestId": "."},
        {"requestId": ""},
        {"requestId": "x" * 129},
        {"requestId": "a\n"},
        {"requestId": 7},
        {"sql": ""},
        {"sql": None},
        {"query": "select 1"},
        {"sql": "delete from market.api_rows"},
        {"sql": "select 1; select 2"},
        {"sql": "select * from market.api_rows limit 5"},
        {"sql": "select 1 as nul\0"},
        {"sql": "x" * 100_001},
        {"format": "xml"},
        {"format": "parquet", "header": True},
        {"format": "parquet", "compression": "gzip"},
        {"format": "parquet", "maxFileSizeMb": 33},
        {"format": "parquet", "delimiter": ","},
        {"format": "json", "nullAs": "x"},
        {"format": "json", "sql": "select 1 as a, 2 as a"},
        {"header": "yes"},
        {"delimiter": "::"},
        {"delimiter": "ö"},
        {"delimiter": "\n"},
        {"compression": "lz4"},
        {"parallel": 1},
        {"maxFileSizeMb": 4},
        {"maxFileSizeMb": 6349},
        {"maxFileSizeMb": 5.5},
        {"partitionBy": "grp"},
        {"partitionBy": ["grp", "GRP"]},
        {"partitionBy": ["gr p"]},
        {"partitionBy": ["nothing_like_it"]},
        {"partitionBy": ["id", "name", "grp"]},
        {"region": "moon"},
        {"nullAs": "\0"},
        {"access_key_id": "x"},
    ],
    ids=str,
)
def test_refused_input_is_422_with_a_reason(client: Any, change: dict[str, Any]) -> None:
    answer = client.call("POST", "/api/unload", {"requestId": f"r-{uuid4().hex}", "sql": QUERY, **change})
    assert answer.status == 422, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["detail"]


@pytest.mark.parametrize("raw", [b"{", b"", b"nonsense", b'{"requestId": "a", }', b"\xff\xfe"])
def test_malformed_body_is_400(client: Any, raw: bytes) -> None:
    assert client.call("POST", "/api/unload", raw=raw).status == 400


@pytest.mark.parametrize("raw", [b"[]", b"null", b"1", b'"text"'])
def test_a_body_that_is_no_object_is_422(client: Any, raw: bytes) -> None:
    assert client.call("POST", "/api/unload", raw=raw).status in {400, 422}


def test_refusal_tells_part_and_position(client: Any) -> None:
    answer = client.submit("select id, pg_sleep(9) from market.api_rows")
    assert (answer.status, answer.body["part"], answer.body["position"]) == (422, "pg_sleep", 12)


def test_another_schema_is_403_unless_the_token_has_it(client: Any, new_client: Any) -> None:
    answer = client.submit("select * from secret.salaries")
    assert (answer.status, answer.body["part"]) == (403, "secret.salaries")
    assert new_client(schemas=("secret",)).submit("select * from secret.salaries").status == 202
    assert new_client(schemas=("secret",)).submit(QUERY).status == 403


def test_a_missing_table_is_failed_in_the_warehouses_words_and_can_be_tried_again(client: Any) -> None:
    state = client.unload("select * from market.nope")
    assert state["status"] == "FAILED"
    assert state["error"] == {"code": "42P01", "message": 'relation "market.nope" does not exist'}
    name = state["requestId"]
    assert client.get(f"/api/unload/file/{name}").status == 409
    assert client.call("POST", f"/api/unload/{name}/cancel").status == 409
    again = client.call("POST", f"/api/unload/{name}/retry")
    assert (again.status, again.body["status"], again.body["error"]) == (202, "PENDING", None)
    assert client.wait(name)["status"] == "FAILED"
    assert [each["status"] for each in changes(client, name)].count("FAILED") == 2


def test_no_token_or_a_wrong_one_is_401(client: Any, api: Any) -> None:
    for caller in (as_caller(client, None), as_caller(client, "dpu_wrong"), as_caller(client, "")):
        for method, path in (("GET", "/api/unload"), ("POST", "/api/unload"), ("GET", "/api/unload/status/x")):
            answer = caller.call(method, path, {"requestId": "x", "sql": "select 1"} if method == "POST" else None)
            assert answer.status == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"


def test_unknown_requests_are_404(client: Any) -> None:
    for path in ("/api/unload/nothing", "/api/unload/status/nothing", "/api/unload/file/nothing", "/api/unload/%00",
                 "/api/unload/nothing/events", "/api/nothing"):  # fmt: skip
        answer = client.get(path)
        assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json"), path
    assert client.call("POST", "/api/unload/nothing/cancel").status == 404
    assert client.call("POST", "/api/unload/nothing/retry").status == 404
    assert client.call("DELETE", "/api/unload/nothing").status == 405


def test_a_body_that_is_too_large_is_413(client: Any) -> None:
    answer = client.submit("select '" + "x" * 600_000 + "'")
    assert (answer.status, answer.headers["content-type"]) == (413, "application/problem+json")


def test_calls_beyond_the_rate_are_429_with_a_wait(new_client: Any) -> None:
    fast = new_client(requests_per_s=1.0, burst=5)
    answers = [fast.get("/api/unload") for _ in range(8)]
    assert [answer.status for answer in answers].count(200) in {5, 6}
    refused = next(answer for answer in answers if answer.status == 429)
    assert int(refused.headers["retry-after"]) >= 1
    time.sleep(1.1)
    assert fast.get("/api/unload").status == 200


def test_quotas_refuse_new_requests_but_never_a_repetition(new_client: Any) -> None:
    daily = new_client(daily_requests=1)
    name = daily.submit(QUERY).body["requestId"]
    assert daily.submit(QUERY).status == 403
    assert daily.submit(QUERY, name).status == 200


def test_requests_over_the_concurrency_wait(new_client: Any, cloud: Cloud) -> None:
    one_at_a_time = new_client(concurrency=1, max_open=2)
    slow = cloud.faults("warehouse").arm("unload.slow", match={"query": "*slow_one*"}, seconds=3)
    first = one_at_a_time.submit("select id as slow_one from market.api_rows").body["requestId"]
    second = one_at_a_time.submit(QUERY).body["requestId"]
    third = one_at_a_time.submit(QUERY)
    assert (third.status, "retry-after" in third.headers) == (429, True)
    assert one_at_a_time.wait(second)["status"] == "DONE"
    assert cloud.faults("warehouse").struck(slow) == 1
    states = [one_at_a_time.get(f"/api/unload/{name}").body for name in (first, second)]
    assert states[1]["startedAt"] >= states[0]["completedAt"]


def test_list_pages_through_the_callers_own_requests(new_client: Any) -> None:
    caller = new_client()
    names = [caller.submit(QUERY).body["requestId"] for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = caller.get(f"/api/unload?limit=2{cursor and f'&cursor={cursor}'}").body
        seen += [state["requestId"] for state in page["requests"]]
        if page["cursor"] is None:
            break
        cursor = page["cursor"]
    assert seen == names[::-1]
    for name in names:
        caller.wait(name)
    assert len(caller.get("/api/unload?status=DONE").body["requests"]) == 5
    assert caller.get("/api/unload?status=FAILED").body == {"requests": [], "cursor": None}
    refused = ("status=X", "cursor=!!", "limit=0", "limit=201")
    assert {caller.get(f"/api/unload?{bad}").status for bad in refused} == {422}


def test_files_are_gone_once_the_retention_has_passed(client: Any, ledger: sa.Engine) -> None:
    state = client.unload(f"{QUERY} where id = 1")
    name = state["requestId"]
    with ledger.begin() as connection:
        connection.execute(
            sa.update(unload_requests)
            .where(unload_requests.c.request_id == name)
            .values(expires_at=sa.func.now() + sa.text("interval '20 seconds'"))
        )
    [file] = client.get(f"/api/unload/file/{name}").body["files"]
    left = datetime.fromisoformat(file["expiresAt"]) - datetime.now().astimezone()
    assert left <= timedelta(seconds=20)
    with ledger.begin() as connection:
        connection.execute(
            sa.update(unload_requests).where(unload_requests.c.request_id == name).values(expires_at=sa.func.now())
        )
    assert client.get(f"/api/unload/file/{name}").status == 410
    assert client.get(f"/api/unload/{name}").body["status"] == "EXPIRED"


def test_deleted_files_are_told_as_gone(client: Any, cloud: Cloud) -> None:
    from data_platform.clients import aws

    state = client.unload(f"{QUERY} where id = 1")
    bucket, _, key = state["files"][0].removeprefix("s3://").partition("/")
    aws.s3(cloud.settings).delete_object(Bucket=bucket, Key=key)
    assert client.get(f"/api/unload/file/{state['requestId']}").status == 410


def test_health_ready_and_openapi_need_no_token(client: Any) -> None:
    nobody = as_caller(client, None)
    assert nobody.get("/health").body == {"status": "ok"}
    assert nobody.get("/ready").status == 200
    paths = nobody.get("/openapi.json").body["paths"]
    assert {"/api/unload", "/api/unload/{request_id}/events", "/health", "/ready"} <= set(paths)


def test_the_page_tells_every_call_and_loads_nothing_from_elsewhere(client: Any) -> None:
    with urllib.request.urlopen(f"{client.url}/docs", timeout=10) as response:
        text = response.read().decode()
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    for path in client.get("/openapi.json").body["paths"]:
        assert f"<code>{path}</code>" in text
    for word in ("requestId", "maxFileSizeMb", "problem+json", "curl"):
        assert word in text
    assert "<script" not in text
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    assert client.get("/redoc").status == 404


def test_a_method_that_is_not_there_is_405_and_tells_those_that_are(client: Any) -> None:
    for path, methods in (("/api/unload", "GET, POST"), ("/api/unload/x", "GET"), ("/api/unload/x/cancel", "POST")):
        answer = client.call("DELETE", path)
        assert (answer.status, answer.headers["allow"]) == (405, methods), path


def test_a_revoked_token_is_refused_within_seconds(api: Any, ledger: sa.Engine, client: Any) -> None:
    from data_platform.ledger import api_tokens

    with ledger.begin() as connection:
        name = f"short-lived-{uuid4().hex[:8]}"
        token = api_tokens.create(connection, name)
    caller = as_caller(client, token)
    assert caller.get("/api/unload").status == 200
    with ledger.begin() as connection:
        assert api_tokens.revoke(connection, name)
    time.sleep(1.2)
    assert caller.get("/api/unload").status == 401
