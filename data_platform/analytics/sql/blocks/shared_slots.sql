-- In which slots of the records of `piece` other days have records too; 0, of ids without time, is not looked for. What
-- is staged of other services on these days is taken along: it does no harm.
WITH mine AS
(
    SELECT DISTINCT slot FROM {record_uids} WHERE day IN (SELECT day FROM piece)
    UNION DISTINCT
    SELECT DISTINCT slot FROM analytics_blocks.record_uids
    WHERE day BETWEEN {first:Date} AND {last:Date} AND (service, day) IN (SELECT service, day FROM piece)
)
SELECT slot FROM mine
WHERE slot = 0 OR slot IN
(
    SELECT slot FROM analytics_blocks.record_uids
    WHERE slot != 0 AND slot IN (SELECT slot FROM mine)
        AND service IN {services:Array(String)} AND (service, day) NOT IN (SELECT service, day FROM targets)
)
