WITH last_days AS (
  SELECT
    service,
    MAX(day) AS last_day
  FROM analytics_blocks.event_days
  WHERE
    service IN :services
  GROUP BY
    service
), days AS (
  SELECT
    known.service AS service,
    known.first_day AS day,
    COUNT_IF(active.day = known.first_day) AS cohort,
    COUNT_IF(active.day = DATE_ADD('DAY', 1, known.first_day)) AS on_d1,
    COUNT_IF(active.day = DATE_ADD('DAY', 7, known.first_day)) AS on_d7,
    COUNT_IF(active.day = DATE_ADD('DAY', 30, known.first_day)) AS on_d30,
    COUNT_IF(
      active.day = known.first_day
      AND known.newest_day >= DATE_ADD('DAY', 1, known.first_day)
    ) AS from_d1,
    COUNT_IF(
      active.day = known.first_day
      AND known.newest_day >= DATE_ADD('DAY', 7, known.first_day)
    ) AS from_d7,
    COUNT_IF(
      active.day = known.first_day
      AND known.newest_day >= DATE_ADD('DAY', 30, known.first_day)
    ) AS from_d30
  FROM analytics_blocks.user_days AS active
  INNER JOIN (
    SELECT
      service,
      user_id,
      MIN(day) AS first_day,
      MAX(day) AS newest_day
    FROM analytics_blocks.user_days
    GROUP BY
      service,
      user_id
  ) AS known
    ON known.service = active.service AND known.user_id = active.user_id
  GROUP BY
    known.service,
    known.first_day
)
SELECT
  days.service AS service,
  days.day AS cohort_date,
  CAST(cohort AS BIGINT) AS cohort_size,
  IF(DATE_ADD('day', 1, day) > last_day, NULL, CAST(on_d1 AS BIGINT)) AS retained_d1,
  IF(DATE_ADD('day', 7, day) > last_day, NULL, CAST(on_d7 AS BIGINT)) AS retained_d7,
  IF(DATE_ADD('day', 30, day) > last_day, NULL, CAST(on_d30 AS BIGINT)) AS retained_d30,
  CAST(IF(DATE_ADD('day', 1, day) > last_day, NULL, CAST(on_d1 AS BIGINT)) AS DOUBLE) / CAST(cohort AS BIGINT) AS rate_d1,
  CAST(IF(DATE_ADD('day', 7, day) > last_day, NULL, CAST(on_d7 AS BIGINT)) AS DOUBLE) / CAST(cohort AS BIGINT) AS rate_d7,
  CAST(IF(DATE_ADD('day', 30, day) > last_day, NULL, CAST(on_d30 AS BIGINT)) AS DOUBLE) / CAST(cohort AS BIGINT) AS rate_d30,
  IF(DATE_ADD('day', 1, day) > last_day, NULL, CAST(from_d1 AS BIGINT)) AS retained_d1_unbounded,
  IF(DATE_ADD('day', 7, day) > last_day, NULL, CAST(from_d7 AS BIGINT)) AS retained_d7_unbounded,
  IF(DATE_ADD('day', 30, day) > last_day, NULL, CAST(from_d30 AS BIGINT)) AS retained_d30_unbounded,
  :execution_date AS execution_date
FROM days
INNER JOIN last_days
  ON last_days.service = days.service
WHERE
  CAST(cohort AS BIGINT) > 0 AND days.day IN :days
