-- Events and users of a service by day, from the raw events alone. `stretches` are the time zone's days. A record whose
-- first copy lies on a day before the range is left out by the second condition, not by LIMIT BY.
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
    WHERE service_name = {service:String} AND _ds BETWEEN {first_ds:Date} AND {last_ds:Date}
    ORDER BY source_object, source_position
    LIMIT 1 BY ifNull(record_uid, concat(source_object, '#', toString(source_position)))
)
WHERE day IN {days:Array(Date)}
GROUP BY day
