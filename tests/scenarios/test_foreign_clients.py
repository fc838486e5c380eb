"""Programs that nobody here wrote, against the embedded cloud: awswrangler's UNLOAD, the `aws` command line."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator

import boto3
import pandas as pd
import pytest

from data_platform.clients import redshift
from data_platform.local.cloud import Cloud

ROWS = 1000


@pytest.fixture
def session(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[boto3.Session]:
    """boto3 as any program uses it: the environment of `cloud env`, nothing else."""
    for name, value in cloud.env.items():
        monkeypatch.setenv(name, value)
    return boto3.Session()


@pytest.mark.integration
@pytest.mark.parametrize("parallel", [True, False])
def test_awswrangler_unloads_to_parquet_and_reads_the_rows_back(
    cloud: Cloud, session: boto3.Session, parallel: bool
) -> None:
    import awswrangler as wr

    settings = cloud.settings
    path = f"s3://{settings.unload_bucket}/wrangler/{'on' if parallel else 'off'}/"
    sql = f"SELECT n AS id, 'it''s \\\\ ' || n AS label, CASE WHEN n % 7 = 0 THEN NULL ELSE n / 2.0 END AS half \
FROM generate_series(1, {ROWS}) AS n"
    with redshift.connect(settings) as connection:
        frame = wr.redshift.unload(
            sql,
            path,
            connection,
            iam_role=settings.redshift_unload_role,
            parallel=parallel,
            keep_files=True,
            boto3_session=session,
        )
    frame = frame.sort_values("id").reset_index(drop=True)
    assert frame["id"].tolist() == list(range(1, ROWS + 1))
    assert frame["half"].isna().sum() == ROWS // 7
    assert wr.s3.list_objects(path, boto3_session=session)
    assert isinstance(frame, pd.DataFrame)


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("aws") is None, reason="not run: the aws command line is not on PATH")
def test_the_aws_command_line_sees_what_provision_made(cloud: Cloud) -> None:
    environment = os.environ | cloud.env
    buckets = subprocess.run(
        ["aws", "s3api", "list-buckets", "--output", "json"], env=environment, capture_output=True, check=True
    )
    names = {bucket["Name"] for bucket in json.loads(buckets.stdout)["Buckets"]}
    assert {cloud.settings.raw_bucket, cloud.settings.curated_bucket, cloud.settings.unload_bucket} <= names
