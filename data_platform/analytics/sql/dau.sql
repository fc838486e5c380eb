-- dau: one row per day with events. new: the user's first day ever; sessions: started that day.
WITH
    first_days AS (SELECT user_id, min(activity_date) AS first_day FROM user_days GROUP BY user_id),
    daily AS
    (
        SELECT activity_date, count() AS dau, countIf(activity_date = first_day) AS new_users
        FROM user_days INNER JOIN first_days USING (user_id)
        GROUP BY activity_date
    ),
    started AS (SELECT activity_date, count() AS sessions FROM sessions GROUP BY activity_date),
    seen AS (SELECT activity_date, count() AS events FROM events GROUP BY activity_date)
SELECT
    seen.activity_date AS activity_date,
    toUInt64(daily.dau) AS dau,
    toUInt64(daily.new_users) AS new_users,
    toUInt64(daily.dau - daily.new_users) AS returning_users,
    toUInt64(started.sessions) AS sessions,
    toUInt64(seen.events) AS events,
    {execution_date:Date} AS execution_date
FROM seen
LEFT JOIN daily ON daily.activity_date = seen.activity_date
LEFT JOIN started ON started.activity_date = seen.activity_date
ORDER BY activity_date
