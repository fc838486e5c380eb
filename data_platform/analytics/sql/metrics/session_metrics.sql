-- session_metrics: one row per day of session start. Percentiles are nearest rank, the value at ceil(p x n) of the
-- sorted values, in integers so that no rounding decides. Durations in seconds, computed in nanoseconds.
WITH
    sorted AS
    (
        SELECT
            service,
            day,
            count() AS n,
            sum(events) AS all_events,
            sum(duration_ns) AS all_ns,
            countIf(events = 1) AS singles,
            arraySort(groupArray(events)) AS by_events,
            arraySort(groupArray(duration_ns)) AS by_duration
        FROM analytics_blocks.sessions
        WHERE service IN {services:Array(String)} AND day IN {days:Array(Date)}
        GROUP BY service, day
    )
SELECT
    sorted.service AS service,
    sorted.day AS activity_date,
    toUInt64(n) AS sessions,
    toUInt64(of_day.users) AS users,
    toUInt64(all_events) AS events,
    all_events / n AS events_mean,
    toUInt64(by_events[intDiv(n * 50 + 99, 100)]) AS events_median,
    toUInt64(by_events[intDiv(n * 90 + 99, 100)]) AS events_p90,
    toUInt64(by_events[intDiv(n * 99 + 99, 100)]) AS events_p99,
    toUInt64(by_events[n]) AS events_max,
    all_ns / n / 1e9 AS duration_mean_s,
    by_duration[intDiv(n * 50 + 99, 100)] / 1e9 AS duration_median_s,
    by_duration[intDiv(n * 90 + 99, 100)] / 1e9 AS duration_p90_s,
    toUInt64(singles) AS single_event_sessions,
    {execution_date:Date} AS execution_date
FROM sorted
INNER JOIN analytics_blocks.session_days AS of_day ON of_day.service = sorted.service AND of_day.day = sorted.day
