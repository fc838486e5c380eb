-- The parts of users' events without session.id near the days to build, of users who have some there; `piece` counts the
-- gaps before.
SELECT * EXCEPT starts, sum(starts) OVER (
    PARTITION BY service, key ORDER BY started ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
) AS piece
FROM
(
    SELECT *,
        -- Where the clock is set back over midnight, a part of one day may lie within one of another.
        toUnixTimestamp64Nano(started)
            - max(toUnixTimestamp64Nano(ended)) OVER (
                PARTITION BY service, key ORDER BY started ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) > 30 * 60 * 1000000000 AS starts
    FROM {session_parts}
    WHERE kind = 'gap' AND service IN {services:Array(String)} AND day IN {gap_days:Array(Date)}
        AND hash IN
        (
            SELECT hash FROM {session_parts}
            WHERE kind = 'gap' AND service IN {services:Array(String)}
                AND day IN (SELECT day FROM targets) AND (service, day) IN (SELECT service, day FROM targets)
        )
)
