SELECT
    days.day AS activity_date, toUInt64(dau) AS dau, toUInt64(new_users) AS new_users,
    toUInt64(dau - new_users) AS returning_users, toUInt64(started.sessions) AS sessions, toUInt64(events) AS events
FROM
(
    SELECT event_date AS day, count() AS events, uniqExact(user_id) AS dau
    FROM analytics.events WHERE service_name = 'bench' GROUP BY day
) AS days
LEFT JOIN
(
    SELECT first_day AS day, count() AS new_users FROM
    (
        SELECT user_id, min(event_date) AS first_day FROM analytics.events
        WHERE service_name = 'bench' AND user_id IS NOT NULL GROUP BY user_id
    )
    GROUP BY day
) AS firsts ON firsts.day = days.day
LEFT JOIN (SELECT day, count() AS sessions FROM ({sessions}) GROUP BY day) AS started ON started.day = days.day
