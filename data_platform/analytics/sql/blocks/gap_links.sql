-- Days with parts of users' events without session.id that go on with, or lead to, parts of the given days: 30 minutes
-- or less lie between them, as these are or as `staged`. The third column tells whether one of them fills its day.
SELECT
    other.service AS service,
    other.day AS day,
    max(toUnixTimestamp64Nano(other.ended) - toUnixTimestamp64Nano(other.started) >= {whole_day_ns}) AS fills_day
FROM
(
    SELECT service, day, hash, started, ended
    FROM analytics_blocks.session_parts
    WHERE kind = 'gap' AND service IN {services:Array(String)} AND day IN {near:Array(Date)}
) AS other
INNER JOIN
(
    SELECT day, hash, started, ended
    FROM analytics_blocks.session_parts
    WHERE kind = 'gap' AND service IN {services:Array(String)}
        AND (service, day) IN (SELECT service, day FROM targets)
    UNION ALL
    SELECT day, hash, started, ended
    FROM {staged}
    WHERE kind = 'gap' AND (service, day) IN (SELECT service, day FROM targets)
) AS mine ON mine.hash = other.hash
WHERE other.day != mine.day
    AND toUnixTimestamp64Nano(other.started) - toUnixTimestamp64Nano(mine.ended) <= 30 * 60 * 1000000000
    AND toUnixTimestamp64Nano(mine.started) - toUnixTimestamp64Nano(other.ended) <= 30 * 60 * 1000000000
GROUP BY service, day
