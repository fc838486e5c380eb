-- Sessions by session.id with parts on more than one of the days of `piece`; now and then another with the same hash.
SELECT hash
FROM {session_parts}
WHERE kind = 'id' AND service IN {services:Array(String)}
    AND day IN (SELECT day FROM piece) AND (service, day) IN (SELECT service, day FROM piece)
GROUP BY hash
HAVING count() > 1
