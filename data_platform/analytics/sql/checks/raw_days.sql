-- Events and users of a service by day, from the raw events alone. `stretches` are the time zone's days; `ds` has the UTC
-- days of the given ones and of all that have copies of their records, for the first copy may lie anywhere.
SELECT day, count() AS events, uniqExact(user_id) AS dau
FROM
(
    SELECT
        arrayElement(
            {labels:Array(Date)},
            arrayLastIndex(start -> start <= intDiv(toUnixTimestamp64Nano(event_time), 1000000000), {starts:Array(Int64)})
        ) AS day,
        user_id
    FROM analytics.events
    WHERE service_name = {service:String} AND _ds IN {ds:Array(Date)} AND day >= {min_data_date:Date}
    ORDER BY source_object, source_position
    LIMIT 1 BY ifNull(record_uid, concat(source_object, '#', toString(source_position)))
)
WHERE day IN {days:Array(Date)}
GROUP BY day
