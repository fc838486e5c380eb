WITH ages AS (
  SELECT
    active.service AS service,
    active.day AS day,
    COUNT(*) AS all_users,
    COUNT_IF(DATE_DIFF('DAY', known.first_day, active.day) >= 7) AS from_recent,
    COUNT_IF(DATE_DIFF('DAY', known.first_day, active.day) >= 30) AS from_active,
    COUNT_IF(DATE_DIFF('DAY', known.first_day, active.day) >= 90) AS from_veteran
  FROM analytics_blocks.user_days AS active
  INNER JOIN (
    SELECT
      service,
      user_id,
      MIN(day) AS first_day
    FROM analytics_blocks.user_days
    GROUP BY
      service,
      user_id
  ) AS known
    ON known.service = active.service AND known.user_id = active.user_id
  GROUP BY
    active.service,
    active.day
)
SELECT
  service,
  day AS activity_date,
  items.item_1 AS cohort,
  CAST(items.item_2 AS BIGINT) AS users,
  CAST(items.item_2 AS DOUBLE) / all_users AS share,
  :execution_date AS execution_date
FROM ages
CROSS JOIN UNNEST(ARRAY[ROW('new', CAST(all_users - from_recent AS BIGINT)), ROW('recent', CAST(from_recent - from_active AS BIGINT)), ROW('active', CAST(from_active - from_veteran AS BIGINT)), ROW('veteran', CAST(from_veteran AS BIGINT))]) AS items(item_1, item_2)
