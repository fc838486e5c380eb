SELECT
  service,
  day AS activity_date,
  event_name,
  CAST(events AS BIGINT) AS events,
  CAST(users AS BIGINT) AS users,
  CAST(events AS DOUBLE) / SUM(events) OVER (PARTITION BY service, day) AS share,
  :execution_date AS execution_date
FROM analytics_blocks.event_days
WHERE
  service IN :services AND day IN :days
