-- Sessions by session.id with parts on more than one of the days of `near`; now and then another with the same hash.
SELECT hash
FROM {session_parts}
WHERE kind = 'id' AND service IN {services:Array(String)} AND hash % {slices:UInt32} = {slice:UInt32}
    AND day IN (SELECT day FROM near) AND (service, day) IN (SELECT service, day FROM near)
GROUP BY hash
HAVING count() > 1
