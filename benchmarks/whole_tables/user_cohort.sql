SELECT day AS activity_date, row.1 AS cohort, toUInt64(row.2) AS users, row.2 / everybody AS share
FROM
(
    SELECT day, count() AS everybody,
        [('new', toInt64(countIf(age < 7))), ('recent', toInt64(countIf(age >= 7 AND age < 30))),
         ('active', toInt64(countIf(age >= 30 AND age < 90))), ('veteran', toInt64(countIf(age >= 90)))] AS bands
    FROM
    (
        SELECT active.day AS day, active.day - firsts.first_day AS age
        FROM (SELECT DISTINCT user_id, event_date AS day FROM analytics.events WHERE service_name = 'bench' AND user_id IS NOT NULL) AS active
        INNER JOIN
        (
            SELECT user_id, min(event_date) AS first_day FROM analytics.events
            WHERE service_name = 'bench' AND user_id IS NOT NULL GROUP BY user_id
        ) AS firsts ON firsts.user_id = active.user_id
    )
    GROUP BY day
)
ARRAY JOIN bands AS row
