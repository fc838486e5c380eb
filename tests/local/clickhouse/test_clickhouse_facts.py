"""Facts about the engine that loader and rebuilds are built on; an upgrade that changes one fails here first."""

from collections.abc import Callable

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.local.clickhouse.conftest import Http

pytestmark = pytest.mark.integration

DAY = "2026-01-01"
ONE_BLOCK = {"max_insert_threads": 1, "min_insert_block_size_rows": 0, "min_insert_block_size_bytes": 10**9}


@pytest.fixture
def insert(client: Client) -> Callable[..., None]:
    """Insert 10 rows of a day by a token into `target`, which has a window; `stage` is its staging table."""
    for name in ("target", "stage"):
        client.command(
            f"CREATE OR REPLACE TABLE {name} (_ds Date, a Int64) ENGINE = MergeTree PARTITION BY _ds ORDER BY a"
            " SETTINGS non_replicated_deduplication_window = 1000"
        )

    def run(token: str, *, table: str = "target", rows: int = 10, query_id: str = "") -> None:
        client.command(
            f"INSERT INTO {table} SELECT toDate('{DAY}'), number FROM numbers({rows})",
            settings={"insert_deduplication_token": token, **ONE_BLOCK, **({"query_id": query_id} if query_id else {})},
        )

    return run


def count(client: Client, table: str = "target") -> int:
    return int(client.query(f"SELECT count() FROM {table}").first_row[0])


def test_a_token_keeps_the_second_insert_out_whatever_it_brings(client: Client, insert: Callable[..., None]) -> None:
    insert("t")
    insert("t", rows=99)
    assert count(client) == 10


def test_written_rows_do_not_tell_of_a_deduplicated_insert_but_an_event_does(
    client: Client, insert: Callable[..., None]
) -> None:
    insert("t", query_id="first-of-two")
    insert("t", query_id="second-of-two")
    client.command("SYSTEM FLUSH LOGS")
    rows = client.query(
        "SELECT written_rows, ProfileEvents['DuplicatedInsertedBlocks'] > 0 FROM system.query_log"
        " WHERE type = 'QueryFinish' AND query_id IN ('first-of-two', 'second-of-two') ORDER BY query_id"
    ).result_rows
    assert rows == [(10, 0), (10, 1)]


@pytest.mark.parametrize(
    ("statements", "remembered"),
    [
        ([f"ALTER TABLE target DROP PARTITION '{DAY}'"], False),
        (["TRUNCATE TABLE target"], False),
        ([f"ALTER TABLE target REPLACE PARTITION '{DAY}' FROM stage"], True),
        (
            [
                f"ALTER TABLE target REPLACE PARTITION '{DAY}' FROM stage",
                f"ALTER TABLE target DROP PARTITION '{DAY}'",
            ],
            True,
        ),
        (["ALTER TABLE target DELETE WHERE 1 SETTINGS mutations_sync = 1"], True),
    ],
)
def test_which_ways_of_removing_rows_leave_the_token_behind(
    client: Client, insert: Callable[..., None], statements: list[str], remembered: bool
) -> None:
    insert("t")
    insert("other", table="stage", rows=3)
    for statement in statements:
        client.command(statement)
    before = count(client)
    insert("t")
    assert count(client) == before + (0 if remembered else 10)


def test_partitions_move_and_replace(client: Client, insert: Callable[..., None]) -> None:
    insert("t")
    insert("s", table="stage", rows=3)
    client.command(f"ALTER TABLE target REPLACE PARTITION '{DAY}' FROM stage")
    assert (count(client), count(client, "stage")) == (3, 3)
    client.command(f"ALTER TABLE stage MOVE PARTITION '{DAY}' TO TABLE target")
    client.command(f"ALTER TABLE stage MOVE PARTITION '{DAY}' TO TABLE target")
    assert (count(client), count(client, "stage")) == (6, 0)
    parts = "SELECT partition, sum(rows) FROM system.parts WHERE table = 'target' AND active GROUP BY partition"
    assert client.query(parts).result_rows == [(DAY, 6)]
    client.command(f"ALTER TABLE target DETACH PARTITION '{DAY}'")
    assert count(client) == 0
    client.command(f"ALTER TABLE target ATTACH PARTITION '{DAY}'")
    assert count(client) == 6


@pytest.mark.parametrize(
    ("emptied_by", "refused"),
    [
        ([], True),
        ([f"ALTER TABLE stage DROP PARTITION '{DAY}'"], True),
        (["TRUNCATE TABLE stage"], True),
        (["ALTER TABLE stage DELETE WHERE 1 SETTINGS mutations_sync = 1"], False),
        ([f"ALTER TABLE stage MOVE PARTITION '{DAY}' TO TABLE elsewhere"], False),
    ],
)
def test_replacing_from_an_empty_staging_partition_is_not_always_refused(
    client: Client, insert: Callable[..., None], emptied_by: list[str], refused: bool
) -> None:
    """Where it is not, the target's rows are gone without a word: whoever replaces has to count first."""
    client.command("CREATE OR REPLACE TABLE elsewhere AS stage")
    insert("t")
    if emptied_by:
        insert("s", table="stage")
    for statement in emptied_by:
        client.command(statement)
    assert count(client, "stage") == 0
    replace = f"ALTER TABLE target REPLACE PARTITION '{DAY}' FROM stage"
    if refused:
        with pytest.raises(DatabaseError, match="refusing `REPLACE PARTITION`") as caught:
            client.command(replace)
        assert (caught.value.code, count(client)) == (36, 10)
    else:
        client.command(replace)
        assert count(client) == 0


def test_dependent_views_are_deduplicated_too(client: Client, insert: Callable[..., None]) -> None:
    client.command(
        "CREATE OR REPLACE TABLE bitmaps (_ds Date, users AggregateFunction(groupBitmap, UInt32))"
        " ENGINE = AggregatingMergeTree ORDER BY _ds SETTINGS non_replicated_deduplication_window = 1000"
    )
    client.command(
        "CREATE MATERIALIZED VIEW filler TO bitmaps AS"
        " SELECT _ds, groupBitmapState(toUInt32(a)) AS users FROM target GROUP BY _ds"
    )
    try:
        insert("t")
        insert("t")
        assert count(client, "bitmaps") == 1
        assert client.query("SELECT groupBitmapMerge(users) FROM bitmaps").first_row == (10,)
        rolling = "SELECT groupBitmapMerge(users) OVER (ORDER BY _ds ROWS 29 PRECEDING) FROM bitmaps"
        assert client.query(rolling).first_row == (10,)
    finally:
        client.command("DROP TABLE filler")


def test_forced_deduplication_notices_a_missing_token_but_not_a_missing_window(
    client: Client, insert: Callable[..., None]
) -> None:
    client.command("CREATE OR REPLACE TABLE forgetful (a Int64) ENGINE = MergeTree ORDER BY a")
    statement, forced = (
        "INSERT INTO forgetful SELECT number FROM numbers(5)",
        {"deduplicate_insert_select": "force_enable"},
    )
    with pytest.raises(DatabaseError) as caught:
        client.command(statement, settings=forced)
    assert caught.value.code == 764
    for _ in range(2):
        client.command(statement, settings={**forced, "insert_deduplication_token": "t"})
    assert count(client, "forgetful") == 10, "only a probe with two inserts shows that the window is off"


def test_a_table_outlives_detach_and_attach(client: Client, insert: Callable[..., None]) -> None:
    insert("t")
    client.command("DETACH TABLE target")
    client.command("ATTACH TABLE target")
    assert count(client) == 10
    insert("t")
    assert count(client) == 10, "the token outlives them as well"


def test_a_replicated_table_needs_a_keeper(http: Http) -> None:
    made = http(b"CREATE TABLE replicated (a Int64) ENGINE = ReplicatedMergeTree('/t', 'r') ORDER BY a")
    assert made.code == 225
