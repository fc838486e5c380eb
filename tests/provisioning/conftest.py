"""Settings that lead to the embedded cloud under an environment name and buckets of their own."""

import uuid
from typing import Any

import pytest

from data_platform.settings import Settings


@pytest.fixture
def fresh(cloud: Any) -> Settings:
    """Nothing of these settings' AWS resources exists yet; the engines are shared."""
    name = f"t{uuid.uuid4().hex[:8]}"
    return cloud.settings.model_copy(
        update={"env": name} | {f"{role}_bucket": f"{name}-{role}" for role in ("raw", "curated", "unload")}
    )
