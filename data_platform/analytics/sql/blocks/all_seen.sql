-- What stands on the days, each key once a day: a merge costs the product of how often a key stands on either side.
SELECT DISTINCT {key} AS key, day FROM {from} WHERE {only} AND day IN (SELECT day FROM days)
