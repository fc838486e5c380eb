-- Which services have a key of `sought` on which of the days.
SELECT DISTINCT service, day
FROM {block}
PREWHERE {key} IN (SELECT key FROM {sought})
WHERE {only} AND day IN (SELECT day FROM days)
    AND service IN {services:Array(String)} AND (service, day) NOT IN (SELECT service, day FROM targets)
    {exact}
