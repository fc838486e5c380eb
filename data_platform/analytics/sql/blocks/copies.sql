-- Other days that have a copy of a record of `piece`: which of the copies counts may change there. Day by day, without
-- a set of all that is built at once. The hashes are probed first: of nearly all rows nothing else is read.
SELECT DISTINCT service, day
FROM analytics_blocks.record_uids
PREWHERE hash IN
(
    SELECT hash FROM {record_uids} WHERE (service, day) IN (SELECT service, day FROM piece)
    UNION ALL
    SELECT hash FROM analytics_blocks.record_uids
    WHERE day BETWEEN {first:Date} AND {last:Date} AND (service, day) IN (SELECT service, day FROM piece)
)
WHERE service IN {services:Array(String)} AND (service, day) NOT IN (SELECT service, day FROM targets)
-- The hashes are all over the index: to look them up there first would cost more than it could spare.
SETTINGS use_index_for_in_with_subqueries = 0
