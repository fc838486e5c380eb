WITH rolling AS (
  SELECT
    calendar.service AS service,
    calendar.day AS day,
    SUM(COALESCE(change.in_30, 0)) OVER (
      PARTITION BY calendar.service
      ORDER BY calendar.day
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS mau_30,
    SUM(COALESCE(change.in_28, 0)) OVER (
      PARTITION BY calendar.service
      ORDER BY calendar.day
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS mau_28,
    SUM(COALESCE(change.in_month, 0)) OVER (
      PARTITION BY calendar.service, DATE_TRUNC('MONTH', calendar.day)
      ORDER BY calendar.day
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS mau_month_to_date,
    COALESCE(change.active, 0) AS dau
  FROM (
    SELECT
      spans.service AS service,
      days.day AS day
    FROM (
      SELECT
        service,
        MIN(day) AS first_day,
        MAX(day) AS last_day
      FROM analytics_blocks.event_days
      GROUP BY
        service
    ) AS spans
    CROSS JOIN UNNEST(SEQUENCE(spans.first_day, spans.last_day)) AS days(day)
  ) AS calendar
  LEFT JOIN (
    SELECT
      service,
      day,
      SUM(in_30) AS in_30,
      SUM(in_28) AS in_28,
      SUM(in_month) AS in_month,
      SUM(active) AS active
    FROM (
      SELECT
        placed.service AS service,
        CASE step.number
          WHEN 1
          THEN placed.day
          WHEN 2
          THEN COALESCE(LEAST(placed.following, placed.out_30), placed.out_30)
          ELSE COALESCE(LEAST(placed.following, placed.out_28), placed.out_28)
        END AS day,
        CASE step.number WHEN 1 THEN 1 WHEN 2 THEN -1 ELSE 0 END AS in_30,
        CASE step.number WHEN 1 THEN 1 WHEN 3 THEN -1 ELSE 0 END AS in_28,
        IF(step.number = 1 AND placed.place = 1, 1, 0) AS in_month,
        IF(step.number = 1, 1, 0) AS active
      FROM (
        SELECT
          service,
          day,
          DATE_ADD('DAY', 30, day) AS out_30,
          DATE_ADD('DAY', 28, day) AS out_28,
          LEAD(day) OVER (PARTITION BY service, user_id ORDER BY day) AS following,
          ROW_NUMBER() OVER (PARTITION BY service, user_id, DATE_TRUNC('MONTH', day) ORDER BY day) AS place
        FROM analytics_blocks.user_days
      ) AS placed
      CROSS JOIN UNNEST(ARRAY[1, 2, 3]) AS step(number)
    ) AS steps
    GROUP BY
      service,
      day
  ) AS change
    ON change.service = calendar.service AND change.day = calendar.day
)
SELECT
  service,
  day AS activity_date,
  CAST(mau_30 AS BIGINT) AS mau_30,
  CAST(mau_28 AS BIGINT) AS mau_28,
  CAST(mau_month_to_date AS BIGINT) AS mau_month_to_date,
  CAST(dau AS BIGINT) AS dau,
  IF(mau_30 = 0, NULL, CAST(dau AS DOUBLE) / mau_30) AS stickiness,
  :execution_date AS execution_date
FROM rolling
WHERE
  day IN :days
