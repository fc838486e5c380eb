"""Every mistake of a catalogue is told: all at once, with the file, the path in it and a reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_platform.catalog import CatalogError, Problem, load_catalog

pytestmark = pytest.mark.unit

Change = Callable[[dict[str, Any]], object]
ORDERS = "datasets/market/orders.yaml"
SHOPS = "datasets/market/shops.yaml"


def daily() -> dict[str, Any]:
    return {
        "name": "orders",
        "domain": "market",
        "description": "One order.",
        "owner": "team:market",
        "mode": "daily",
        "source": {"kind": "redshift", "table": "market.orders", "partition_column": "day"},
        "start": "2024-01-01",
        "end": "2024-12-31",
        "columns": [
            {"name": "id", "type": "UInt64"},
            {"name": "shop", "type": "String"},
            {"name": "price", "type": "Decimal(18, 2)", "nullable": True},
            {"name": "tags", "type": "Array(String)"},
        ],
        "order_by": ["shop", "id"],
        "checks": [{"kind": "unique", "columns": ["id"]}, {"kind": "range", "column": "price", "min": 0}],
    }


def snapshot() -> dict[str, Any]:
    return {
        "name": "shops",
        "domain": "market",
        "description": "One shop.",
        "owner": "someone@example.com",
        "mode": "snapshot",
        "source": {"sql": "SELECT id FROM market.shops"},
        "columns": [{"name": "id", "type": "UInt64"}],
        "order_by": ["id"],
    }


def domain(name: str = "market") -> dict[str, Any]:
    return {
        "name": name,
        "description": "A market.",
        "owner": "team:market",
        "priority": "high",
        "batch": {"min": 5, "max": 10},
        "peak_messages_per_hour": 1000,
        "mean_file_mb": 5,
        "memory_mb": 768,
    }


class Folder:
    """A catalogue on disk that is right until it is changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = {
            "domains.yaml": [domain()],
            "services.yaml": [{"name": "the-shop"}],
            "topics.yaml": [{"name": "user-events"}],
            ORDERS: daily(),
            SHOPS: snapshot(),
        }

    def write(self) -> None:
        for name, data in self.data.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False))

    def problems(self, *, parse_sql: bool = True) -> list[Problem]:
        self.write()
        try:
            load_catalog(self.path, parse_sql=parse_sql)
        except CatalogError as error:
            return error.problems
        return []


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_the_unchanged_catalogue_has_no_mistake(folder: Folder) -> None:
    assert folder.problems() == []


def rename(data: dict[str, Any], old: str, new: str) -> None:
    data[new] = data.pop(old)


DATASET_RULES: list[tuple[Change, str, str]] = [
    # structure
    (lambda d: rename(d, "owner", "ownr"), "ownr", "unknown key; did you mean 'owner'?"),
    (lambda d: d.update(colour="red"), "colour", "unknown key; known are name, domain"),
    (lambda d: d["columns"][1].update(nulable=True), "columns[1].nulable", "did you mean 'nullable'"),
    (lambda d: d["source"].update(tabel="a.b"), "source.tabel", "did you mean 'table'"),
    (lambda d: d.pop("description"), "description", "is missing"),
    (lambda d: d["columns"][0].pop("type"), "columns[0].type", "is missing"),
    (lambda d: d.update(columns=[]), "columns", "at least 1 item"),
    (lambda d: d.update(mode="dayly"), "mode", "must be 'daily' or 'snapshot', not 'dayly'; did you mean 'daily'?"),
    (lambda d: d.update(overwrite="never"), "overwrite", "must be 'replace', 'append' or 'reject'"),
    (lambda d: d.update(owner="nobody"), "owner", "team:<name> or an e-mail address"),
    (lambda d: d.update(start="yesterday"), "start", "date"),
    (lambda d: d.update(freshness_hours=0), "freshness_hours", "greater than 0"),
    (lambda d: d.update(retention_days=0), "retention_days", "greater than or equal to 1"),
    (lambda d: d["source"].update(kind="mysql"), "source", "kind must be 'redshift', 'otel_logs', not 'mysql'"),
    (lambda d: d["source"].update(table="orders"), "source.table", "does not fit"),
    (lambda d: d["checks"].append({"kind": "uniqe", "columns": ["id"]}), "checks[2]", "did you mean 'unique'"),
    (lambda d: d["checks"][0].pop("columns"), "checks[0].columns", "is missing"),
    (lambda d: d["checks"][1].update(colum="id"), "checks[1].colum", "did you mean 'column'"),
    # columns and types
    (lambda d: d["columns"][0].update(type="UInt46"), "columns[0].type", "unknown type 'UInt46'; did you mean UInt64?"),
    (lambda d: d["columns"][2].update(type="Decimal(2, 5)"), "columns[2].type", "the scale must be 0 to 2"),
    (lambda d: d["columns"][2].update(type="Nullable(Int8)"), "columns[2].type", "write `nullable: true`"),
    (lambda d: d["columns"][3].update(nullable=True), "columns[3]", "Array cannot be nullable"),
    (lambda d: d["columns"][3].update(name="_tags"), "columns[3].name", "a leading _ is the platform's"),
    (lambda d: d["columns"][3].update(name="id"), "columns[3].name", "'id' is columns[0] already"),
    # keys
    (lambda d: d.update(order_by=["shop", "idd"]), "order_by[1]", "'idd' is no column; did you mean 'id'?"),
    (lambda d: d.update(order_by=["price"]), "order_by[0]", "'price' is nullable"),
    (lambda d: d.update(order_by=["tags"]), "order_by[0]", "has no order"),
    (lambda d: d.update(order_by=["id", "id"]), "order_by[1]", "stands twice"),
    (lambda d: d.update(partition_by="toYYYYMM(_ds)"), "partition_by", "must be _ds, not 'toYYYYMM(_ds)'"),
    # days
    (lambda d: d["source"].pop("partition_column"), "source.partition_column", "a daily dataset names the DATE column"),
    (lambda d: d.pop("start"), "start", "a daily dataset names its first day"),
    (lambda d: d.update(end="2023-12-31"), "end", "2023-12-31 is before the start, 2024-01-01"),
    # source
    (lambda d: d["source"].update(sql="SELECT 1"), "source", "both are given"),
    (lambda d: d["source"].pop("table"), "source", "neither is given"),
    (lambda d: d["source"].update(ready="SELECT 1; SELECT 2"), "source.ready", "exactly one SELECT, found 2"),
    (lambda d: d["source"].update(ready="SELECT a, b FROM t"), "source.ready", "one boolean, found 2 columns"),
    (lambda d: d["source"].update(ready="SELECT max(d) > :date FROM t"), "source.ready", "the parameter :date"),
    (lambda d: d["source"].update(ready=" "), "source.ready", "is empty"),
    # checks
    (lambda d: d["checks"][0].update(columns=["id", "nr"]), "checks[0].columns[1]", "'nr' is no column"),
    (lambda d: d["checks"][1].update(column="prize"), "checks[1].column", "did you mean 'price'"),
    (lambda d: d["checks"][1].update(column="shop"), "checks[1].column", "a range is for numbers"),
    (lambda d: d["checks"][1].update(max=-1), "checks[1].max", "-1 is below the min, 0"),
    (lambda d: d["checks"][1].pop("min"), "checks[1]", "a min, a max or both"),
    # place
    (lambda d: d.update(domain="marked"), "domain", "unknown domain 'marked'; did you mean 'market'?"),
    (lambda d: d.update(name="order"), "name", "the file must be called order.yaml"),
]


@pytest.mark.parametrize(
    ("change", "path", "reason"), DATASET_RULES, ids=[f"{p}-{r[:25]}" for _, p, r in DATASET_RULES]
)
def test_a_mistake_in_a_daily_dataset_is_told_alone(folder: Folder, change: Change, path: str, reason: str) -> None:
    change(folder.data[ORDERS])
    found = folder.problems()
    # A misspelt required key is two mistakes: one key too many and one too few.
    mine = [problem for problem in found if problem.path == path]
    assert len(mine) == 1, found
    assert reason in mine[0].reason
    assert {problem.file for problem in found} == {ORDERS}
    assert len(found) <= (2 if path == "ownr" else 1), found


@pytest.mark.parametrize(
    ("change", "path", "reason"),
    [
        (lambda d: d["source"].update(partition_column="id"), "source.partition_column", "unloaded whole"),
        (lambda d: d.update(start="2024-01-01"), "start", "a snapshot has no start day"),
        (lambda d: d.update(end="2024-01-01"), "end", "a snapshot has no end day"),
        (
            lambda d: d["source"].update(sql="DELETE FROM market.shops"),
            "source.sql",
            "one SELECT, found DELETE",
        ),
        (lambda d: d["source"].update(sql="SELECT id INTO x FROM y"), "source.sql", "must only read, found INTO"),
        (
            lambda d: d["source"].update(sql="SELECT id FROM (SELECT"),
            "source.sql",
            "is no SQL that Redshift reads: line",
        ),
        (lambda d: d["source"].update(sql="SELECT 'id"), "source.sql", "no SQL that Redshift reads"),
        (lambda d: d["source"].update(sql="SELECT id FROM s WHERE d = :day"), "source.sql", "a source takes none"),
        (lambda d: d.update(source={"kind": "otel_logs"}), "mode", "events come day by day"),
    ],
)
def test_a_mistake_in_a_snapshot_is_told(folder: Folder, change: Change, path: str, reason: str) -> None:
    change(folder.data[SHOPS])
    found = [problem for problem in folder.problems() if problem.path == path]
    assert [(problem.file, reason in problem.reason) for problem in found] == [(SHOPS, True)]


@pytest.mark.parametrize(
    ("file", "data", "path", "reason"),
    [
        ("domains.yaml", [domain(), domain()], "[1].name", "stands here and at [0]"),
        ("domains.yaml", [domain(), domain("system")], "[1].name", "a database of ClickHouse"),
        ("domains.yaml", [{**domain(), "batch": {"min": 5, "max": 3}}], "[0].batch.max", "3 is below the min, 5"),
        (
            "domains.yaml",
            [{**domain(), "batch": {"min": 5, "max": 6, "peak": 5}}],
            "[0].batch.peak",
            "5 is below the max",
        ),
        ("domains.yaml", [{**domain(), "batch": {"min": 5, "max": 11}}], "[0].batch.max", "less than or equal to 10"),
        ("domains.yaml", {"market": domain()}, "", "must be a list of entries"),
        ("services.yaml", [{"name": "a-b"}, {"name": "a-b"}], "[1].name", "a name stands once"),
        ("services.yaml", [{"name": "a", "time_zone": "Asia/Soul"}], "[0].time_zone", "did you mean 'Asia/Seoul'"),
        ("services.yaml", [{"name": "a", "cohorts": {"recent": 30}}], "[0].cohorts", "must rise"),
        (
            "services.yaml",
            [{"name": "a", "conversion": {"cart": "product_view"}}],
            "[0].conversion.cart",
            "the view step",
        ),
        ("services.yaml", [{"name": "A B"}], "[0].name", "a service name is a-z"),
        ("services.yaml", [{"nam": "a"}], "[0].nam", "did you mean 'name'"),
        ("services.yaml", ["the-shop"], "[0]", "must be a mapping of keys, not plain text"),
        ("topics.yaml", [{"name": "t", "partitions": 0}], "[0].partitions", "greater than or equal to 1"),
        ("topic.yaml", [{"name": "t"}], "", "is read by nobody; did you mean 'topics.yaml'?"),
        ("datasets/market/empty.yaml", "", "", "is empty"),
        ("datasets/market/broken.yaml", "a: [1\nb: 2\n", "line 2", "not valid YAML"),
        ("datasets/market/two.yaml", "a: 1\n---\nb: 2\n", "line 2", "not valid YAML"),
        ("datasets/market/tab.yaml", "a:\n\t- b\n", "line 2", "not valid YAML"),
        ("datasets/market/latin.yaml", "a: \x00", "", "not valid YAML"),
        ("datasets/market/tag.yaml", "!!python/object/apply:os.system ['true']", "line 1", "not valid YAML"),
    ],
)
def test_a_mistake_in_another_file_is_told(folder: Folder, file: str, data: Any, path: str, reason: str) -> None:
    folder.data[file] = data
    if file == "domains.yaml":
        del folder.data[ORDERS], folder.data[SHOPS]
    found = [problem for problem in folder.problems() if problem.file == file]
    assert [problem.path for problem in found if reason in problem.reason] == [path], found


def test_a_missing_file_or_folder_is_a_mistake(folder: Folder, tmp_path: Path) -> None:
    del folder.data["services.yaml"]
    assert folder.problems() == [Problem("services.yaml", "", "cannot be read: No such file or directory")]
    with pytest.raises(CatalogError, match="no such folder"):
        load_catalog(tmp_path / "nowhere")


def test_both_lines_of_duplicate_keys_are_told_and_the_rest_is_still_read(folder: Folder) -> None:
    text = yaml.safe_dump(daily(), sort_keys=False) + "owner: team:other\nmode: daily\ncolour: red\n"
    folder.data[ORDERS] = text
    lines = text.splitlines()
    assert [(problem.path, problem.reason.split(";")[0]) for problem in folder.problems()] == [
        ("colour", "unknown key"),
        (f"line {lines.index('owner: team:other') + 1}", "duplicate key 'owner'"),
        (f"line {len(lines) - 1}", "duplicate key 'mode'"),
    ]


def test_a_date_that_is_no_day_is_told_with_its_key_and_hides_nothing(folder: Folder) -> None:
    folder.write()
    file = folder.path / ORDERS
    text = file.read_text().replace("'2024-01-01'", "2013-13-01").replace("owner: team:market", "owner: nobody")
    folder.data[ORDERS] = text
    found = {problem.path: problem.reason for problem in folder.problems()}
    assert set(found) == {"start", "owner"}
    assert "'2013-13-01'" in found["start"]


def test_a_misspelt_order_key_is_told_beside_broken_columns(folder: Folder) -> None:
    folder.data[ORDERS]["columns"][2]["nullable"] = "perhaps"
    folder.data[ORDERS]["columns"][1]["type"] = "Strin"
    folder.data[ORDERS]["order_by"] = ["shopp", "id"]
    found = {problem.path for problem in folder.problems()}
    assert found == {"columns[2].nullable", "columns[1].type", "order_by[0]"}


def test_services_with_one_table_prefix_are_told(folder: Folder) -> None:
    folder.data["services.yaml"] = [{"name": "the-shop"}, {"name": "x", "time_zone": "Mars"}, {"name": "the_shop"}]
    reasons = {problem.path: problem.reason for problem in folder.problems()}
    assert set(reasons) == {"[1].time_zone", "[2].name"}
    assert reasons["[2].name"] == "'the_shop' has the table prefix 'the_shop' of 'the-shop', [0]"


def test_a_dataset_in_the_wrong_folder_is_told(folder: Folder) -> None:
    folder.data["domains.yaml"].append(domain("product"))
    folder.data["datasets/product/orders.yaml"] = folder.data.pop(ORDERS)
    (found,) = folder.problems()
    assert (found.file, found.path) == ("datasets/product/orders.yaml", "domain")
    assert "the file lies in the folder datasets/product" in found.reason


def test_a_dataset_described_twice_is_told(folder: Folder) -> None:
    folder.data["datasets/market/deep/orders.yaml"] = daily()
    found = folder.problems()
    assert {(problem.path, problem.reason.split(",")[0]) for problem in found} == {
        ("domain", "is 'market'"),
        ("name", f"'market/orders' is described in {'datasets/market/deep/orders.yaml'} already"),
    }


def test_tables_that_belong_to_the_platform_are_told(folder: Folder) -> None:
    folder.data["domains.yaml"].append(domain("analytics"))
    folder.data["datasets/market/shops_snapshots.yaml"] = {**snapshot(), "name": "shops_snapshots"}
    summary = {**snapshot(), "name": "the_shop_dau_summary", "domain": "analytics"}
    folder.data["datasets/analytics/the_shop_dau_summary.yaml"] = summary
    assert {(problem.file, problem.reason) for problem in folder.problems()} == {
        ("datasets/market/shops_snapshots.yaml", "market.shops_snapshots stores the snapshots of market/shops"),
        (
            "datasets/analytics/the_shop_dau_summary.yaml",
            "analytics.the_shop_dau_summary is a summary table of the-shop",
        ),
    }


def test_events_need_the_columns_that_their_curation_writes(folder: Folder) -> None:
    folder.data[ORDERS]["source"] = {"kind": "otel_logs"}
    paths = {problem.path for problem in folder.problems()}
    assert paths == {*(f"columns[{position}].name" for position in range(4)), "columns"}


def test_sql_is_parsed_on_demand_only(folder: Folder) -> None:
    folder.data[SHOPS]["source"]["sql"] = "DROP TABLE market.shops"
    assert folder.problems(parse_sql=False) == []
    assert len(folder.problems(parse_sql=True)) == 1


def test_all_mistakes_of_all_files_come_at_once(folder: Folder) -> None:
    """More than 25 mistakes, several to a file: none hides another."""
    expected: set[tuple[str, str]] = set()
    for change, path, _ in DATASET_RULES:
        name = f"d{len(expected)}"
        if path in {"ownr", "domain", "name"}:
            continue
        data = daily()
        data["name"] = name
        change(data)
        folder.data[f"datasets/market/{name}.yaml"] = data
        expected.add((f"datasets/market/{name}.yaml", path))
    orders = folder.data[ORDERS]
    orders.update(colour="red", partition_by="id", order_by=["shop", "nr"], end="2020-01-01", freshness_hours=-1)
    orders["columns"][0]["type"] = "Int46"
    orders["columns"][2].update(name="_price", nulable=True)
    orders["checks"][0]["columns"] = ["nr"]
    orders["source"].update(ready="INSERT INTO a SELECT 1")
    expected |= {
        (ORDERS, path)
        for path in (
            *("colour", "partition_by", "order_by[1]", "end", "freshness_hours", "columns[0].type", "columns[2].name"),
            *("columns[2].nulable", "checks[0].columns[0]", "checks[1].column", "source.ready"),
        )
    }
    folder.data["services.yaml"] = [{"name": "a", "time_zone": "Mars"}, {"name": "a"}]
    expected |= {("services.yaml", "[0].time_zone"), ("services.yaml", "[1].name")}
    folder.data["datasets/market/broken.yaml"] = "a: [1\nb: 2\n"
    found = {(problem.file, problem.path) for problem in folder.problems()}
    expected.add(("datasets/market/broken.yaml", "line 2"))
    assert len(expected) > 50
    assert found == expected
