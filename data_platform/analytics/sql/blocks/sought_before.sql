-- What stands on the days and is not staged again.
SELECT {key} AS key, {rest} AS rest
FROM {block}
WHERE {only} AND day BETWEEN '{first}' AND '{last}' AND (service, day) IN (SELECT service, day FROM piece)
    AND ({key}, {rest}) NOT IN (SELECT key, rest FROM {sought})
