-- Other days that have a copy of a record of `piece`, as it is or as it is staged: which of the copies counts may change.
-- Only the slots of these records are read, and of nearly all their rows nothing but the hash.
WITH mine AS
(
    SELECT service, slot, hash FROM {record_uids} WHERE (service, day) IN (SELECT service, day FROM piece)
    UNION ALL
    SELECT service, slot, hash FROM analytics_blocks.record_uids
    WHERE day BETWEEN {first:Date} AND {last:Date} AND (service, day) IN (SELECT service, day FROM piece)
)
SELECT DISTINCT service, day
FROM analytics_blocks.record_uids
PREWHERE hash IN (SELECT hash FROM mine)
WHERE slot IN (SELECT DISTINCT slot FROM mine)
    AND service IN {services:Array(String)} AND (service, day) NOT IN (SELECT service, day FROM targets)
