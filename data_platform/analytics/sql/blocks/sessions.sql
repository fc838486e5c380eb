-- Sessions that started on the days to build, put together from their parts on whatever days. Parts of different
-- days have no time in common, so there the time alone tells whether an add-to-cart follows a view. `piece` are all days
-- with parts of sessions by session.id that have a part in the days to build.
SELECT service, day, events, duration_ns, viewed, carted, users
FROM
(
    SELECT
        service,
        min(part.day) AS day,
        sum(part.events) AS events,
        toUnixTimestamp64Nano(max(part.ended)) - toUnixTimestamp64Nano(min(part.started)) AS duration_ns,
        max(part.viewed) AS viewed,
        max(part.carted)
            OR (max(part.viewed) AND max(part.carts)
                AND minIf(part.first_view, part.viewed) < maxIf(part.last_cart, part.carts)) AS carted,
        groupUniqArrayArray(part.users) AS users
    FROM
    (
        SELECT *, 0 AS piece
        FROM analytics_blocks.session_parts
        WHERE kind = 'id' AND service IN {services:Array(String)} AND day IN (SELECT day FROM piece) AND hash IN
        (
            SELECT hash FROM analytics_blocks.session_parts
            WHERE kind = 'id' AND service IN {services:Array(String)}
                AND day IN (SELECT day FROM targets) AND (service, day) IN (SELECT service, day FROM targets)
        )
        UNION ALL
        SELECT * EXCEPT starts, sum(starts) OVER (
            PARTITION BY service, key ORDER BY started ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS piece
        FROM
        (
            SELECT *,
                toUnixTimestamp64Nano(started)
                    - lagInFrame(toUnixTimestamp64Nano(ended), 1, toUnixTimestamp64Nano(started)) OVER (
                        PARTITION BY service, key ORDER BY started ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
                    ) > 30 * 60 * 1000000000 AS starts
            FROM analytics_blocks.session_parts
            WHERE kind = 'gap' AND service IN {services:Array(String)} AND day IN {gap_days:Array(Date)}
        )
    ) AS part
    GROUP BY service, kind, key, piece
)
WHERE (service, day) IN (SELECT service, day FROM targets)
