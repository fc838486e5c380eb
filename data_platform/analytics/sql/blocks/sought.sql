-- The keys that are staged of some days.
SELECT {key} AS key, {rest} AS rest FROM {twin} WHERE {only} AND {of}
