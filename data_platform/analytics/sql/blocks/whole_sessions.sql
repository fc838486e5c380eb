-- Sessions by session.id that lie in one of the days to build, whole: `unless` leaves out the others.
SELECT
    service, day, events, toUnixTimestamp64Nano(ended) - toUnixTimestamp64Nano(started) AS duration_ns,
    viewed, carted, users
FROM {session_parts}
WHERE kind = 'id' AND service IN {services:Array(String)}
    AND day IN (SELECT day FROM targets) AND (service, day) IN (SELECT service, day FROM targets)
{unless}
