"""Clients of AWS: what one more of them costs a process."""

import tracemalloc

import pytest
from pydantic import SecretStr

from data_platform.clients import aws
from data_platform.settings import Settings

pytestmark = pytest.mark.unit
SETTINGS = Settings.model_validate(
    {
        "aws_endpoint_url": "http://127.0.0.1:9",
        "aws_access_key_id": "a",
        "aws_secret_access_key": "b",
        "aws_region": "us-east-1",
    }
)


def test_another_client_keeps_no_descriptions_of_its_own() -> None:
    """Each would be 12 MB in cycles: what opens clients again and again grows by them between full collections."""
    first = aws.s3(SETTINGS)
    tracemalloc.start()
    try:
        second = aws.s3(SETTINGS)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert second is not first
    assert kept < 2 * 2**20


def test_clients_have_the_credentials_of_their_own_settings() -> None:
    other = SETTINGS.model_copy(update={"aws_access_key_id": SecretStr("c")})
    urls = [
        aws.s3(each).generate_presigned_url("get_object", {"Bucket": "b", "Key": "k"}) for each in (SETTINGS, other)
    ]
    assert "Credential=a%2F" in urls[0]
    assert "Credential=c%2F" in urls[1]
