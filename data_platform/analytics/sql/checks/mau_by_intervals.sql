-- Rolling 30 days without bitmaps or ids: each active day counts a user in on its day, and out 30 days later or on the
-- user's next active day, whichever comes first; the running sum is the MAU.
SELECT day, mau_30
FROM
(
    SELECT day, sum(sum(step)) OVER (ORDER BY day ROWS UNBOUNDED PRECEDING) AS mau_30
    FROM
    (
        SELECT arrayJoin([(day, 1), (least(day + 30, if(following = toDate(0), day + 30, following)), -1)]) AS change,
            change.1 AS day, change.2 AS step
        FROM
        (
            SELECT day AS day,
                leadInFrame(day, 1, toDate(0)) OVER (
                    PARTITION BY user_id ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
                ) AS following
            FROM analytics_blocks.user_days
            WHERE service = {service:String}
        )
    )
    GROUP BY day
)
