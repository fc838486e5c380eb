"""The users of the CSV batch, U00001 to U00100, and a file that updates all of them. Deterministic.

What belongs here: these rows and this file. What does not: the tables, which the ledger's migrations make.
"""

import csv
from io import StringIO
from random import Random

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from data_platform.clients import postgres
from data_platform.ledger.user_statistics import users
from data_platform.settings import Settings

USERS = 100
CSV_NAME = "test-user-stats-20250807-100records.csv"
CSV_HEADER = ("ユーザーID", "ログイン回数", "投稿回数")  # user id, login count, post count


def user_id(number: int) -> str:
    """`U00001` of 1."""
    return f"U{number:05d}"


def statistics_csv() -> bytes:
    """The file: a header and one line a user, UTF-8."""
    random = Random("user-statistics-1")  # noqa: S311 - sample data
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    writer.writerows((user_id(number), random.randrange(500), random.randrange(80)) for number in range(1, USERS + 1))
    return text.getvalue().encode()


def load_users(settings: Settings) -> int | None:
    """Insert the users that are not there; how many there are then, None where the ledger was never migrated.

    Raises SQLAlchemy's errors.
    """
    engine = postgres.engine(settings, pool_size=1)
    try:
        with engine.begin() as connection:
            if not sa.inspect(connection).has_table(users.name):
                return None
            rows = [
                {
                    "user_id": user_id(number),
                    "username": f"testuser{number:03d}",
                    "email": f"test{number:03d}@example.com",
                    "is_active": True,
                    "metadata": {},
                }
                for number in range(1, USERS + 1)
            ]
            connection.execute(insert(users).on_conflict_do_nothing(index_elements=[users.c.user_id]), rows)
            ours = users.c.user_id.in_([row["user_id"] for row in rows])
            return connection.execute(sa.select(sa.func.count()).select_from(users).where(ours)).scalar_one()
    finally:
        engine.dispose()
