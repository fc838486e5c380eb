"""A summary table as Parquet on S3: one object under `summary/<service>/<metric>/`, replaced by one put."""

import io
from typing import TYPE_CHECKING

from data_platform.analytics.metrics import metric_called, table_of
from data_platform.catalog.ddl import qualified, quote
from data_platform.catalog.models import Service

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client
    from mypy_boto3_s3 import S3Client

PREFIX = "summary"


def export_prefix(service: Service, metric: str) -> str:
    """`summary/<service>/<metric>/`."""
    return f"{PREFIX}/{service.name}/{metric}/"


def export_summary(client: "Client", s3: "S3Client", bucket: str, service: Service, metric: str) -> tuple[str, int]:
    """Put the table as it is now under its prefix and remove every other object there; returns its URL and bytes.

    The key is always the same, so a reader sees the old table or the new one.
    """
    chosen = metric_called(metric)
    order = ", ".join(quote(column) for column in (chosen.day, *chosen.key))
    table = client.query_arrow(
        f"SELECT * FROM {qualified('analytics', table_of(service, metric))} ORDER BY {order}",
        settings={"output_format_arrow_string_as_string": 1, "output_format_arrow_low_cardinality_as_dictionary": 0},
    )
    return put_export(s3, bucket, export_prefix(service, metric), metric, table)


def put_export(s3: "S3Client", bucket: str, prefix: str, metric: str, table: "pa.Table") -> tuple[str, int]:
    """Put the rows as `<prefix><metric>.parquet` and remove every other object below `prefix`; its URL and bytes."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    key = f"{prefix}{metric}.parquet"
    body = buffer.getvalue()
    s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/vnd.apache.parquet")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            if item.get("Key") != key:
                s3.delete_object(Bucket=bucket, Key=item.get("Key", ""))
    return f"s3://{bucket}/{key}", len(body)
