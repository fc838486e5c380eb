-- dau: one row per day with events. new: the user's first day ever; sessions: started that day.
WITH
    people AS
    (
        SELECT
            service,
            day,
            bitmapCardinality(users) AS dau,
            dau - bitmapAndCardinality(users, earlier) AS new_users
        FROM
        (
            SELECT service, day, users,
                groupBitmapMergeState(users) OVER (
                    PARTITION BY service ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ) AS earlier
            FROM analytics_blocks.day_users
            WHERE service IN {services:Array(String)} AND day <= arrayMax({days:Array(Date)})
        )
        WHERE day IN {days:Array(Date)}
    )
SELECT
    seen.service AS service,
    seen.day AS activity_date,
    toUInt64(people.dau) AS dau,
    toUInt64(people.new_users) AS new_users,
    toUInt64(people.dau - people.new_users) AS returning_users,
    toUInt64(started.sessions) AS sessions,
    toUInt64(seen.events) AS events,
    {execution_date:Date} AS execution_date
FROM
(
    SELECT service, day, sum(events) AS events
    FROM analytics_blocks.event_days
    WHERE service IN {services:Array(String)} AND day IN {days:Array(Date)}
    GROUP BY service, day
) AS seen
LEFT JOIN people ON people.service = seen.service AND people.day = seen.day
LEFT JOIN analytics_blocks.session_days AS started ON started.service = seen.service AND started.day = seen.day
