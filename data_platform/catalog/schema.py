"""JSON Schema of a dataset file, for editors. It is made from the models; a test holds the committed copy to it."""

import json
from typing import Any

from data_platform.catalog.models import Dataset

SCHEMA_FILE = "schema/dataset.schema.json"  # relative to the catalogue's folder


def dataset_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of `datasets/<domain>/<name>.yaml`."""
    schema = Dataset.model_json_schema()
    schema["properties"]["partition_by"]["const"] = "_ds"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Dataset of the data platform",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def schema_text() -> str:
    """The schema as the committed file has it."""
    return json.dumps(dataset_schema(), indent=2, ensure_ascii=False) + "\n"
