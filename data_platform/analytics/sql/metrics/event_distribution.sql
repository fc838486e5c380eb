-- event_distribution: one row per day and event name; share of the day's events.
SELECT
    service,
    day AS activity_date,
    event_name,
    toUInt64(events) AS events,
    toUInt64(users) AS users,
    events / sum(events) OVER (PARTITION BY service, day) AS share,
    {execution_date:Date} AS execution_date
FROM analytics_blocks.event_days
WHERE service IN {services:Array(String)} AND day IN {days:Array(Date)}
