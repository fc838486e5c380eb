SELECT
  service,
  day AS activity_date,
  CAST(COUNT(*) AS BIGINT) AS sessions,
  CAST(COUNT_IF(viewed) AS BIGINT) AS sessions_viewed,
  CAST(COUNT_IF(carted) AS BIGINT) AS sessions_carted,
  CAST(CAST(COUNT_IF(viewed) AS BIGINT) AS DOUBLE) / CAST(COUNT(*) AS BIGINT) AS view_rate,
  IF(
    CAST(COUNT_IF(viewed) AS BIGINT) = 0,
    NULL,
    CAST(CAST(COUNT_IF(carted) AS BIGINT) AS DOUBLE) / CAST(COUNT_IF(viewed) AS BIGINT)
  ) AS cart_rate,
  CAST(CAST(COUNT_IF(carted) AS BIGINT) AS DOUBLE) / CAST(COUNT(*) AS BIGINT) AS session_to_cart_rate,
  :execution_date AS execution_date
FROM analytics_blocks.sessions
WHERE
  service IN :services AND day IN :days
GROUP BY
  service,
  day
