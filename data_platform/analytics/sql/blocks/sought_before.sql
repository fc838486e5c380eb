-- What stands on the days and is not staged again.
SELECT {key} AS key, {rest} AS rest
FROM {block}
WHERE {only} AND {of} AND ({key}, {rest}) NOT IN (SELECT key, rest FROM {sought})
