-- What stands on the days, each key of a day once or more often.
SELECT {key} AS key, day FROM {from} WHERE {only} AND day IN (SELECT day FROM days)
