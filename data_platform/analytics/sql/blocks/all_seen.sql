-- What stands on the days.
SELECT {distinct} {key} AS key, day FROM {from} WHERE {only} AND day IN (SELECT day FROM days)
