-- mau: one row per day from the first to the last day with events, distinct users of the last 30 / 28 days ending that
-- day and of the calendar month so far. A user's day counts for the days it lies within reach of.
WITH
    bounds AS (SELECT min(activity_date) AS first_day, max(activity_date) AS last_day FROM events),
    days AS
    (
        SELECT arrayJoin(arrayMap(n -> first_day + n, range(toUInt32(last_day - first_day + 1)))) AS activity_date
        FROM bounds
        WHERE (SELECT count() FROM events) > 0
    ),
    reach AS
    (
        SELECT activity_date AS active_on, user_id, arrayJoin(range(31)) AS age, activity_date + age AS activity_date
        FROM user_days
    ),
    rolling AS
    (
        SELECT
            activity_date,
            uniqExactIf(user_id, age < 30) AS mau_30,
            uniqExactIf(user_id, age < 28) AS mau_28,
            uniqExactIf(user_id, toStartOfMonth(active_on) = toStartOfMonth(activity_date)) AS mau_month_to_date,
            uniqExactIf(user_id, age = 0) AS dau
        FROM reach
        GROUP BY activity_date
    )
SELECT
    days.activity_date AS activity_date,
    toUInt64(rolling.mau_30) AS mau_30,
    toUInt64(rolling.mau_28) AS mau_28,
    toUInt64(rolling.mau_month_to_date) AS mau_month_to_date,
    toUInt64(rolling.dau) AS dau,
    if(rolling.mau_30 = 0, NULL, rolling.dau / rolling.mau_30) AS stickiness,
    {execution_date:Date} AS execution_date
FROM days
LEFT JOIN rolling ON rolling.activity_date = days.activity_date
ORDER BY activity_date
