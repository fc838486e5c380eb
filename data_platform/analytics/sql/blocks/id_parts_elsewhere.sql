-- The parts of these sessions that lie in other days; `piece`: the days that have some.
SELECT *, 0 AS piece
FROM analytics_blocks.session_parts
WHERE kind = 'id' AND service IN {services:Array(String)}
    AND day IN (SELECT day FROM piece) AND (service, day) IN (SELECT service, day FROM piece)
    AND hash IN
    (
        SELECT hash FROM analytics_blocks.session_parts
        WHERE kind = 'id' AND service IN {services:Array(String)}
            AND day IN (SELECT day FROM targets) AND (service, day) IN (SELECT service, day FROM targets)
    )
