-- The parts of sessions by session.id that lie in the days to build.
SELECT *, 0 AS piece
FROM analytics_blocks.session_parts
WHERE kind = 'id' AND service IN {services:Array(String)}
    AND day IN (SELECT day FROM targets) AND (service, day) IN (SELECT service, day FROM targets)
