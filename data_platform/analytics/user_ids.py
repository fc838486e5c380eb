"""Dense ids of users, and the users of each day as a bitmap of them. Derived: only the bitmaps depend on the ids."""

from data_platform.analytics.sql_files import statement
from data_platform.analytics.store import DATABASE, BlockStore
from data_platform.errors import PlatformError


def assign_ids(store: BlockStore, user_days: str, day_ids: str, fresh_ids: str) -> None:
    """Put the users of the staged days with their ids into `day_ids` (0: has none), and the new ids into `fresh_ids`.

    Proves that ids and users correspond one to one. Raises PlatformError.
    """
    columns = "(service, day, user_id, id)"
    store.run(f"INSERT INTO {day_ids} {columns} {statement('blocks/day_ids', user_days=user_days)}")
    columns = "(service, user_id, id)"
    store.run(f"INSERT INTO {fresh_ids} {columns} {statement('blocks/fresh_ids', day_ids=day_ids)}")
    store.run(f"INSERT INTO {DATABASE}.user_ids {columns} SELECT service, user_id, id FROM {fresh_ids}")
    # Where the hashes of all users differ, so do the users; only where two agree are the users themselves compared.
    wrong = store.rows(statement("blocks/ids_wrong", user="cityHash64(user_id)"))
    if wrong:
        wrong = store.rows(statement("blocks/ids_wrong", user="user_id"))
    if wrong:
        name, count, highest, ids, people = wrong[0]
        raise PlatformError(
            f"{DATABASE}.user_ids is not one-to-one for {name}: "
            f"{count} rows, {ids} ids up to {highest}, {people} users",
            hint="these tables are made of the events, nothing is lost: "
            + " ".join(f"TRUNCATE TABLE {DATABASE}.{table};" for table in ("user_ids", "day_users", "built"))
            + " then data-platform metrics rebuild",
        )


def stage_bitmaps(store: BlockStore, twin: str, day_ids: str, fresh_ids: str) -> None:
    """Fill the twin of day_users with the bitmaps of the staged days."""
    sql = statement("blocks/day_users", day_ids=day_ids, fresh_ids=fresh_ids)
    store.run(f"INSERT INTO {twin} (service, day, users) {sql}")
