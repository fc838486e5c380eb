-- In place of `rolling`: each active day counts a user in on its day, and out 30 (28) days later or on the user's next
-- active day, whichever comes first; the running sum is the MAU. In a month only the user's first active day counts in.
SELECT
    calendar.service AS service,
    calendar.day AS day,
    sum(coalesce(change.in_30, 0)) OVER (
        PARTITION BY calendar.service ORDER BY calendar.day ROWS UNBOUNDED PRECEDING
    ) AS mau_30,
    sum(coalesce(change.in_28, 0)) OVER (
        PARTITION BY calendar.service ORDER BY calendar.day ROWS UNBOUNDED PRECEDING
    ) AS mau_28,
    sum(coalesce(change.in_month, 0)) OVER (
        PARTITION BY calendar.service, date_trunc('month', calendar.day) ORDER BY calendar.day ROWS UNBOUNDED PRECEDING
    ) AS mau_month_to_date,
    coalesce(change.active, 0) AS dau
FROM
(
    SELECT spans.service AS service, days.day AS day
    FROM
    (
        SELECT service, min(day) AS first_day, max(day) AS last_day
        FROM analytics_blocks.event_days
        GROUP BY service
    ) AS spans
    CROSS JOIN UNNEST(sequence(spans.first_day, spans.last_day)) AS days(day)
) AS calendar
LEFT JOIN
(
    SELECT service, day, sum(in_30) AS in_30, sum(in_28) AS in_28, sum(in_month) AS in_month, sum(active) AS active
    FROM
    (
        SELECT
            placed.service AS service,
            CASE step.number
                WHEN 1 THEN placed.day
                WHEN 2 THEN coalesce(least(placed.following, placed.out_30), placed.out_30)
                ELSE coalesce(least(placed.following, placed.out_28), placed.out_28)
            END AS day,
            CASE step.number WHEN 1 THEN 1 WHEN 2 THEN -1 ELSE 0 END AS in_30,
            CASE step.number WHEN 1 THEN 1 WHEN 3 THEN -1 ELSE 0 END AS in_28,
            if(step.number = 1 AND placed.place = 1, 1, 0) AS in_month,
            if(step.number = 1, 1, 0) AS active
        FROM
        (
            SELECT service, day, date_add('day', 30, day) AS out_30, date_add('day', 28, day) AS out_28,
                lead(day) OVER (PARTITION BY service, user_id ORDER BY day) AS following,
                row_number() OVER (PARTITION BY service, user_id, date_trunc('month', day) ORDER BY day) AS place
            FROM analytics_blocks.user_days
        ) AS placed
        CROSS JOIN UNNEST(ARRAY[1, 2, 3]) AS step(number)
    ) AS steps
    GROUP BY service, day
) AS change ON change.service = calendar.service AND change.day = calendar.day
