-- mau: one row per day from the first to the last day with events, distinct users of the last 30 / 28 days ending that
-- day and of the calendar month so far: unions of the days' bitmaps.
WITH
    daily AS
    (
        SELECT calendar.service AS service, calendar.day AS day, active.users AS users
        FROM
        (
            SELECT service, arrayJoin(arrayMap(n -> min(day) + n, range(toUInt32(max(day) - min(day) + 1)))) AS day
            FROM analytics_blocks.event_days
            WHERE service IN {services:Array(String)}
            GROUP BY service
        ) AS calendar
        LEFT JOIN analytics_blocks.day_users AS active ON active.service = calendar.service AND active.day = calendar.day
        -- a month so far reaches 30 days back as well
        WHERE calendar.day BETWEEN arrayMin({days:Array(Date)}) - 30 AND arrayMax({days:Array(Date)})
    ),
    rolling AS
    (
        SELECT
            service,
            day,
            groupBitmapMerge(users) OVER (PARTITION BY service ORDER BY day ROWS 29 PRECEDING) AS mau_30,
            groupBitmapMerge(users) OVER (PARTITION BY service ORDER BY day ROWS 27 PRECEDING) AS mau_28,
            groupBitmapMerge(users) OVER (
                PARTITION BY service, toStartOfMonth(day) ORDER BY day ROWS UNBOUNDED PRECEDING
            ) AS mau_month_to_date,
            bitmapCardinality(users) AS dau
        FROM daily
    )
SELECT
    service,
    day AS activity_date,
    toUInt64(mau_30) AS mau_30,
    toUInt64(mau_28) AS mau_28,
    toUInt64(mau_month_to_date) AS mau_month_to_date,
    toUInt64(dau) AS dau,
    if(mau_30 = 0, NULL, dau / mau_30) AS stickiness,
    {execution_date:Date} AS execution_date
FROM rolling
WHERE day IN {days:Array(Date)}
