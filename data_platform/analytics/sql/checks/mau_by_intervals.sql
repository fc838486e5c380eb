-- Rolling 30 days without bitmaps or ids: each active day counts a user in on its day, and out 30 days later or on the
-- user's next active day, whichever comes first; the running sum is the MAU.
SELECT day, sum(change) OVER (ORDER BY day ROWS UNBOUNDED PRECEDING) AS mau_30
FROM
(
    SELECT step.1 AS day, sum(step.2) AS change
    FROM
    (
        SELECT day AS active_on,
            leadInFrame(day, 1, day + 30) OVER (
                PARTITION BY user_id ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
            ) AS following
        FROM analytics_blocks.user_days
        WHERE service = {service:String}
    )
    ARRAY JOIN [(active_on, toInt64(1)), (least(active_on + 30, following), toInt64(-1))] AS step
    GROUP BY day
)
