-- Other days that have a copy of a record of `piece`, as it is or as it is staged: which of the copies counts may change.
-- Only the given slots are read, and of nearly all their rows nothing but the hash.
SELECT DISTINCT service, day
FROM analytics_blocks.record_uids
PREWHERE hash IN
(
    SELECT hash FROM {record_uids}
    WHERE slot IN (SELECT slot FROM slots) AND day IN (SELECT day FROM piece)
    UNION ALL
    SELECT hash FROM analytics_blocks.record_uids
    WHERE slot IN (SELECT slot FROM slots) AND day BETWEEN {first:Date} AND {last:Date}
        AND (service, day) IN (SELECT service, day FROM piece)
)
WHERE slot IN (SELECT slot FROM slots)
    AND service IN {services:Array(String)} AND (service, day) NOT IN (SELECT service, day FROM targets)
