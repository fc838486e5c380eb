"""Dense ids of users, and the users of each day as a bitmap of them. Derived: only the bitmaps depend on the ids."""

from data_platform.analytics.sql_files import statement
from data_platform.analytics.store import DATABASE, BlockStore
from data_platform.errors import PlatformError


def assign_ids(store: BlockStore, user_days: str) -> None:
    """Give users without one an id, and prove that ids and users correspond one to one. Raises PlatformError."""
    store.run(
        f"INSERT INTO {DATABASE}.user_ids (service, user_id, id) {statement('blocks/new_ids', user_days=user_days)}"
    )
    wrong = store.rows(statement("blocks/ids_wrong"))
    if wrong:
        name, count, highest, ids, people = wrong[0]
        raise PlatformError(
            f"{DATABASE}.user_ids is not one-to-one for {name}: "
            f"{count} rows, {ids} ids up to {highest}, {people} users",
            hint="these tables are made of the events, nothing is lost: "
            + " ".join(f"TRUNCATE TABLE {DATABASE}.{table};" for table in ("user_ids", "day_users", "built"))
            + " then data-platform metrics rebuild",
        )


def stage_bitmaps(store: BlockStore, user_days: str) -> str:
    """The bitmaps of the staged days; their table."""
    twin = store.staged("day_users")
    store.run(f"INSERT INTO {twin} (service, day, users) {statement('blocks/day_users', user_days=user_days)}")
    return twin
