WITH sorted AS (
  SELECT
    service,
    day,
    COUNT(*) AS n,
    SUM(events) AS all_events,
    SUM(duration_ns) AS all_ns,
    COUNT_IF(events = 1) AS singles,
    ARRAY_SORT(ARRAY_AGG(events)) AS by_events,
    ARRAY_SORT(ARRAY_AGG(duration_ns)) AS by_duration
  FROM analytics_blocks.sessions
  WHERE
    service IN :services AND day IN :days
  GROUP BY
    service,
    day
)
SELECT
  sorted.service AS service,
  sorted.day AS activity_date,
  CAST(n AS BIGINT) AS sessions,
  CAST(of_day.users AS BIGINT) AS users,
  CAST(all_events AS BIGINT) AS events,
  CAST(all_events AS DOUBLE) / n AS events_mean,
  CAST(by_events[(
    n * 50 + 99
  ) / 100] AS BIGINT) AS events_median,
  CAST(by_events[(
    n * 90 + 99
  ) / 100] AS BIGINT) AS events_p90,
  CAST(by_events[(
    n * 99 + 99
  ) / 100] AS BIGINT) AS events_p99,
  CAST(by_events[n] AS BIGINT) AS events_max,
  CAST(CAST(all_ns AS DOUBLE) / n AS DOUBLE) / 1e9 AS duration_mean_s,
  CAST(by_duration[(
    n * 50 + 99
  ) / 100] AS DOUBLE) / 1e9 AS duration_median_s,
  CAST(by_duration[(
    n * 90 + 99
  ) / 100] AS DOUBLE) / 1e9 AS duration_p90_s,
  CAST(singles AS BIGINT) AS single_event_sessions,
  :execution_date AS execution_date
FROM sorted
INNER JOIN analytics_blocks.session_days AS of_day
  ON of_day.service = sorted.service AND of_day.day = sorted.day
