-- The given days, and those that have copies of their records.
SELECT DISTINCT day
FROM analytics_blocks.record_uids
WHERE service = {service:String}
    AND slot IN
    (
        SELECT DISTINCT slot FROM analytics_blocks.record_uids
        WHERE service = {service:String} AND day IN {days:Array(Date)}
    )
    AND hash IN
    (
        SELECT hash FROM analytics_blocks.record_uids WHERE service = {service:String} AND day IN {days:Array(Date)}
    )
