-- The parts of sessions by session.id that have more than one.
SELECT *, 0 AS piece
FROM {session_parts}
WHERE kind = 'id' AND service IN {services:Array(String)}
    AND day IN (SELECT day FROM piece) AND (service, day) IN (SELECT service, day FROM piece)
    AND hash IN
    (
{cut}
    )
