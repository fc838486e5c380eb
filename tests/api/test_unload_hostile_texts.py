"""Texts that break quoting, sent through the whole path and through awswrangler's: the rows are compared.

`docs/unload-api.md` tells what comes of the same queries with awswrangler.
"""

import csv
import gzip
import io
import urllib.request
from typing import Any
from uuid import uuid4

import pytest
import redshift_connector

from data_platform.clients import aws, redshift
from data_platform.local.cloud import Cloud

QUERIES = (
    "select 'it''s' as a",
    "select '''' as a, '''''' as b",
    "select 'back\\\\slash' as a",
    "select 'C:\\\\temp\\\\new' as a",
    "select 'a\\'b' as a",
    "select '\\\\''' as a",
    "select 'tab\\tand newline\\nhere' as a",
    "select '100%' as a, '%s' as b, '{}' as c",
    "select '$$' as a, '$tag$' as b",
    "select '; drop table market.api_rows; --' as a",
    "select '/* no comment */' as a -- a comment that's left open",
    "select 1 as a -- last line is a comment",
    "select coalesce(null, '')||coalesce('x', '') as a",
    "select '名前' as a, 'ö😀' as b",
    "select '\"quoted\", and, commas' as a",
    "select ') to ''s3://elsewhere/'' iam_role default --' as a",
    "select regexp_replace('a  b', '\\\\s+', '-') as a",
    "select name as a from market.api_rows where id in (1, 10, 77) order by id",
    "select case when name like '%\\\\\\\\%' then 'yes' else 'no' end as a from market.api_rows where id < 12",
    "/* 'leading' */ select 'x' as a /* 'trailing' */",
)


def expected(cloud: Cloud, sql: str) -> list[list[str]]:
    """The rows as the warehouse itself answers the query, as CSV would show them."""
    with redshift.connect(cloud.settings) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return sorted(["" if value is None else str(value) for value in row] for row in cursor.fetchall())


@pytest.mark.security
def test_rows_are_those_of_the_query_whatever_it_holds(new_client: Any, cloud: Cloud) -> None:
    client = new_client(concurrency=50)
    accepted = [client.submit(sql) for sql in QUERIES]
    assert [answer.status for answer in accepted] == [202] * 20, [a.body for a in accepted if a.status != 202]
    for sql, answer in zip(QUERIES, accepted, strict=True):
        state = client.wait(answer.body["requestId"], seconds=90)
        assert state["status"] == "DONE", (sql, state)
        [file] = client.get(f"/api/unload/file/{state['requestId']}").body["files"]
        with urllib.request.urlopen(file["url"], timeout=20) as response:
            text = gzip.decompress(response.read()).decode()
        assert rows_of(text)[1:] == expected(cloud, sql), sql


def rows_of(text: str) -> list[list[str]]:
    """The rows of a CSV, the first one first; an empty line is a single column's null."""
    first, *rest = [row or [""] for row in csv.reader(io.StringIO(text, newline=""))] or [[]]
    return [first, *sorted(rest)]


@pytest.mark.security
def test_the_usual_wrapper_gets_some_of_the_same_queries_wrong(cloud: Cloud, table: str) -> None:
    """awswrangler doubles the quotes only: a backslash is eaten, a trailing comment swallows the end."""
    import awswrangler as wr

    s3 = aws.s3(cloud.settings)
    right = 0
    for n, sql in enumerate(QUERIES):
        prefix = f"unload-results/wrangler-{uuid4().hex}/{n}/"
        with redshift.connect(cloud.settings) as connection:
            try:
                wr.redshift.unload_to_files(
                    sql=sql,
                    path=f"s3://{cloud.settings.unload_bucket}/{prefix}",
                    con=connection,
                    iam_role=cloud.settings.redshift_unload_role,
                    unload_format="CSV",
                    parallel=False,
                )
            except redshift_connector.Error:
                continue
        listed = s3.list_objects_v2(Bucket=cloud.settings.unload_bucket, Prefix=prefix).get("Contents", [])
        text = "".join(
            s3.get_object(Bucket=cloud.settings.unload_bucket, Key=item.get("Key", ""))["Body"].read().decode()
            for item in listed
        )
        right += rows_of(f"header\n{text}")[1:] == expected(cloud, sql)
    assert 5 <= right < len(QUERIES), right
