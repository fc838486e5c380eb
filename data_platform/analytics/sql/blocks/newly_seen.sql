-- What is staged on the days and did not stand there before.
SELECT DISTINCT {key} AS key, day
FROM {from}
WHERE {only} AND day IN (SELECT day FROM days)
    AND ({key}, day) NOT IN (SELECT {key}, day FROM {block} WHERE {only} AND day IN (SELECT day FROM days))
