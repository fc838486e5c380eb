-- user_cohort: one row per day with users and cohort; a user's cohort follows from the days since the first day. Who was
-- seen up to day - 7 is older than 6 days, and so on: the cohorts are differences of overlaps.
WITH
    ages AS
    (
        SELECT
            service,
            day,
            bitmapCardinality(users) AS all_users,
            bitmapAndCardinality(users, before_recent) AS from_recent,
            bitmapAndCardinality(users, before_active) AS from_active,
            bitmapAndCardinality(users, before_veteran) AS from_veteran
        FROM
        (
            SELECT service, day, users,
                groupBitmapMergeState(users) OVER (
                    PARTITION BY service ORDER BY day RANGE BETWEEN UNBOUNDED PRECEDING AND {recent} PRECEDING
                ) AS before_recent,
                groupBitmapMergeState(users) OVER (
                    PARTITION BY service ORDER BY day RANGE BETWEEN UNBOUNDED PRECEDING AND {active} PRECEDING
                ) AS before_active,
                groupBitmapMergeState(users) OVER (
                    PARTITION BY service ORDER BY day RANGE BETWEEN UNBOUNDED PRECEDING AND {veteran} PRECEDING
                ) AS before_veteran
            FROM analytics_blocks.day_users
            WHERE service IN {services:Array(String)} AND day <= arrayMax({days:Array(Date)})
        )
        WHERE day IN {days:Array(Date)}
    )
SELECT
    service,
    day AS activity_date,
    row.1 AS cohort,
    toUInt64(row.2) AS users,
    row.2 / all_users AS share,
    {execution_date:Date} AS execution_date
FROM ages
ARRAY JOIN [
    ('new', toInt64(all_users - from_recent)),
    ('recent', toInt64(from_recent - from_active)),
    ('active', toInt64(from_active - from_veteran)),
    ('veteran', toInt64(from_veteran))
] AS row
