-- The parts of sessions by session.id that have more than one.
SELECT *, 0 AS piece
FROM {session_parts}
WHERE kind = 'id' AND service IN {services:Array(String)} AND hash IN (SELECT hash FROM {cut})
    AND day IN (SELECT day FROM near) AND (service, day) IN (SELECT service, day FROM near)
