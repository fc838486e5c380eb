"""Anything may be sent: every answer is one the OpenAPI page promises, in the form it promises, and never a 5xx."""

from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "sql": st.sampled_from(["select 1 as a", "select id from market.api_rows where id < 3", "select", "drop table x"]),
    "format": st.sampled_from(["csv", "parquet", "json", "legacy", "CSV"]),
    "header": st.booleans(),
    "delimiter": st.text(max_size=2),
    "compression": st.sampled_from(["gzip", "zstd", "bzip2", "none", "x"]),
    "parallel": st.booleans(),
    "maxFileSizeMb": st.integers(-1, 7000),
    "partitionBy": st.lists(st.sampled_from(["a", "id", "x y", ""]), max_size=3),
    "nullAs": st.text(max_size=5),
    "region": st.sampled_from(["us-east-1", "eu-west-3", "", "nowhere"]),
}
BODY = st.fixed_dictionaries(
    {"requestId": st.text(max_size=6) | st.builds(lambda: f"s-{uuid4().hex}"), "sql": FIELDS["sql"] | JSON},
    optional={name: values | JSON for name, values in FIELDS.items() if name != "sql"},
)
PATHS = [f"/api/unload/{each}" for each in ("{}", "status/{}", "file/{}", "{}/events", "{}/cancel", "{}/retry")]
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"])
SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def promised(api: Any) -> dict[str, Any]:
    import json
    import urllib.request

    with urllib.request.urlopen(f"{api.url}/openapi.json", timeout=10) as response:
        return json.load(response)


def check(answer: Any, operation: dict[str, Any], document: dict[str, Any]) -> None:
    assert answer.status < 500, answer.body
    assert str(answer.status) in operation["responses"], (answer.status, answer.body)
    media = answer.headers["content-type"].partition(";")[0]
    schema = operation["responses"][str(answer.status)]["content"][media]["schema"]
    Draft202012Validator({**schema, "components": document["components"]}).validate(answer.body)


@pytest.mark.security
@SETTINGS
@given(body=BODY | JSON)
def test_any_body_is_answered_as_promised(new_client: Any, promised: dict[str, Any], body: Any) -> None:
    client = once(new_client)
    check(client.call("POST", "/api/unload", body), promised["paths"]["/api/unload"]["post"], promised)


@pytest.mark.security
@SETTINGS
@given(request_id=st.text(max_size=12), what=st.sampled_from(PATHS), method=METHODS)
def test_any_path_is_answered_with_a_problem(new_client: Any, request_id: str, what: str, method: str) -> None:
    path = what.format(quote(request_id.encode("utf-8", "surrogatepass"), safe=""))
    answer = once(new_client).call(method, path)
    assert answer.status < 500
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} <= set(answer.body)


@pytest.mark.security
@SETTINGS
@given(cursor=st.text(max_size=30), limit=st.text(max_size=5), status=st.text(max_size=8))
def test_any_query_is_answered_as_promised(
    new_client: Any, promised: dict[str, Any], cursor: str, limit: str, status: str
) -> None:
    parts = [f"{name}={quote(value.encode('utf-8', 'surrogatepass'), safe='')}"
             for name, value in (("cursor", cursor), ("limit", limit), ("status", status)) if value]  # fmt: skip
    answer = once(new_client).get(f"/api/unload?{'&'.join(parts)}")
    check(answer, promised["paths"]["/api/unload"]["get"], promised)


_CLIENTS: list[Any] = []


def once(new_client: Any) -> Any:
    """One caller without limits for all examples."""
    if not _CLIENTS:
        _CLIENTS.append(new_client(requests_per_s=100_000.0, burst=100_000, max_open=100_000))
    return _CLIENTS[0]
