"""The users of the CSV batch, U00001 to U00100, and a file that updates all of them. Deterministic.

What belongs here: these rows and this file. What does not: the tables, which the ledger's migrations make.
"""

import csv
from io import StringIO
from random import Random

import psycopg

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
    """Insert the users that are not there; how many there are then, None where there is no table `users`.

    Raises psycopg's errors.
    """
    settings.require("postgres_url")
    url = settings.postgres_url
    plain = "" if url is None else url.get_secret_value().replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain) as connection, connection.cursor() as cursor:
        row = cursor.execute("SELECT to_regclass('users')").fetchone()
        if row is None or row[0] is None:
            return None
        cursor.executemany(
            "INSERT INTO users (user_id, username, email, created_at, updated_at, is_active, metadata)"
            " VALUES (%s, %s, %s, now(), now(), true, '{}') ON CONFLICT (user_id) DO NOTHING",
            [
                (user_id(number), f"testuser{number:03d}", f"test{number:03d}@example.com")
                for number in range(1, USERS + 1)
            ],
        )
        found = cursor.execute("SELECT count(*) FROM users WHERE user_id LIKE 'U00%'").fetchone()
        return 0 if found is None else int(found[0])
