-- Of the staged records those of `piece` that are new to their days, or come from another place than before.
SELECT service, hash
FROM {record_uids}
WHERE (service, day) IN (SELECT service, day FROM piece)
    AND (hash, origin) NOT IN
    (
        SELECT hash, origin FROM analytics_blocks.record_uids
        WHERE day BETWEEN {first:Date} AND {last:Date} AND (service, day) IN (SELECT service, day FROM piece)
    )
