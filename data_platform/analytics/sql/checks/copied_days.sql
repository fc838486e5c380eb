-- The given days, and those that have copies of their records.
SELECT DISTINCT day
FROM analytics_blocks.record_uids
PREWHERE key IN
(
    SELECT key FROM analytics_blocks.record_uids WHERE service = {service:String} AND day IN {days:Array(Date)}
)
WHERE service = {service:String}
