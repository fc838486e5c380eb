-- Whether a record of `piece` is no longer there, or comes from another place: a copy of it may count now.
SELECT 1
FROM analytics_blocks.record_uids
WHERE day BETWEEN {first:Date} AND {last:Date} AND (service, day) IN (SELECT service, day FROM piece)
    AND (hash, origin) NOT IN (SELECT hash, origin FROM {record_uids})
LIMIT 1
