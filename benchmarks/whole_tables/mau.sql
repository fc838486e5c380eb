SELECT
    ending AS activity_date,
    toUInt64(uniqExactIf(user_id, day > ending - 30)) AS mau_30,
    toUInt64(uniqExactIf(user_id, day > ending - 28)) AS mau_28,
    toUInt64(uniqExactIf(user_id, toStartOfMonth(day) = toStartOfMonth(ending))) AS mau_month_to_date,
    toUInt64(uniqExactIf(user_id, day = ending)) AS dau,
    dau / mau_30 AS stickiness
FROM
(
    -- a month so far reaches 30 days back
    SELECT user_id, day, day + arrayJoin(range(31)) AS ending
    FROM (SELECT DISTINCT user_id, event_date AS day FROM analytics.events WHERE service_name = 'bench' AND user_id IS NOT NULL)
)
WHERE ending <= (SELECT max(event_date) FROM analytics.events WHERE service_name = 'bench')
GROUP BY ending
