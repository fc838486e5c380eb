-- retention: one row per cohort day = users' first day; retained: active exactly on day +N; unbounded: on day +N or
-- later. Null where day +N lies after the last day with events.
WITH
    last_days AS
    (
        SELECT service, max(day) AS last_day
        FROM analytics_blocks.event_days
        WHERE service IN {services:Array(String)}
        GROUP BY service
    ),
    days AS
    (
        SELECT
            service,
            day,
            bitmapAndnot(
                users,
                groupBitmapMergeState(users) OVER (
                    PARTITION BY service ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                )
            ) AS cohort,
            groupBitmapMergeState(users) OVER (
                PARTITION BY service ORDER BY day RANGE BETWEEN 1 FOLLOWING AND 1 FOLLOWING
            ) AS on_d1,
            groupBitmapMergeState(users) OVER (
                PARTITION BY service ORDER BY day RANGE BETWEEN 7 FOLLOWING AND 7 FOLLOWING
            ) AS on_d7,
            groupBitmapMergeState(users) OVER (
                PARTITION BY service ORDER BY day RANGE BETWEEN 30 FOLLOWING AND 30 FOLLOWING
            ) AS on_d30,
            groupBitmapMergeState(users) OVER (
                PARTITION BY service ORDER BY day DESC RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS from_d1,
            groupBitmapMergeState(users) OVER (
                PARTITION BY service ORDER BY day DESC RANGE BETWEEN UNBOUNDED PRECEDING AND 7 PRECEDING
            ) AS from_d7,
            groupBitmapMergeState(users) OVER (
                PARTITION BY service ORDER BY day DESC RANGE BETWEEN UNBOUNDED PRECEDING AND 30 PRECEDING
            ) AS from_d30
        FROM analytics_blocks.day_users
        WHERE service IN {services:Array(String)}
    )
SELECT
    days.service AS service,
    days.day AS cohort_date,
    toUInt64(bitmapCardinality(cohort)) AS cohort_size,
    if(day + 1 > last_day, NULL, toUInt64(bitmapAndCardinality(cohort, on_d1))) AS retained_d1,
    if(day + 7 > last_day, NULL, toUInt64(bitmapAndCardinality(cohort, on_d7))) AS retained_d7,
    if(day + 30 > last_day, NULL, toUInt64(bitmapAndCardinality(cohort, on_d30))) AS retained_d30,
    retained_d1 / cohort_size AS rate_d1,
    retained_d7 / cohort_size AS rate_d7,
    retained_d30 / cohort_size AS rate_d30,
    if(day + 1 > last_day, NULL, toUInt64(bitmapAndCardinality(cohort, from_d1))) AS retained_d1_unbounded,
    if(day + 7 > last_day, NULL, toUInt64(bitmapAndCardinality(cohort, from_d7))) AS retained_d7_unbounded,
    if(day + 30 > last_day, NULL, toUInt64(bitmapAndCardinality(cohort, from_d30))) AS retained_d30_unbounded,
    {execution_date:Date} AS execution_date
FROM days
INNER JOIN last_days ON last_days.service = days.service
WHERE cohort_size > 0 AND cohort_date IN {days:Array(Date)}
