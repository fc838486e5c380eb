WITH people AS (
  SELECT
    active.service AS service,
    active.day AS day,
    COUNT(*) AS dau,
    COUNT_IF(active.day = known.first_day) AS new_users
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
  seen.service AS service,
  seen.day AS activity_date,
  CAST(COALESCE(people.dau, 0) AS BIGINT) AS dau,
  CAST(COALESCE(people.new_users, 0) AS BIGINT) AS new_users,
  CAST(COALESCE(people.dau, 0) - COALESCE(people.new_users, 0) AS BIGINT) AS returning_users,
  CAST(COALESCE(started.sessions, 0) AS BIGINT) AS sessions,
  CAST(seen.events AS BIGINT) AS events,
  :execution_date AS execution_date
FROM (
  SELECT
    service,
    day,
    SUM(events) AS events
  FROM analytics_blocks.event_days
  WHERE
    service IN :services AND day IN :days
  GROUP BY
    service,
    day
) AS seen
LEFT JOIN people
  ON people.service = seen.service AND people.day = seen.day
LEFT JOIN analytics_blocks.session_days AS started
  ON started.service = seen.service AND started.day = seen.day
