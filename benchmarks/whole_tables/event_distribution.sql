SELECT
    event_date AS activity_date, event_name, toUInt64(count()) AS events, toUInt64(uniqExact(user_id)) AS users,
    count() / sum(count()) OVER (PARTITION BY event_date) AS share
FROM analytics.events
WHERE service_name = 'bench'
GROUP BY event_date, event_name
