-- Events of one service with their day in the service's time zone. Of records with the same log.record.uid only the
-- first by (object key, position) counts; a record without one stands for itself.
SELECT
    toDate(event_time, {time_zone:String}) AS activity_date,
    event_time,
    event_name,
    user_id,
    session_id,
    source_object,
    source_position
FROM
(
    SELECT *
    FROM analytics.events
    WHERE service_name = {service:String}
        -- the partition column prunes; a local day reaches into the UTC days beside it
        AND _ds >= {min_date:Date} - 1
        AND toDate(event_time, {time_zone:String}) >= {min_date:Date}
    ORDER BY source_object, source_position
    LIMIT 1 BY ifNull(record_uid, concat(source_object, '#', toString(source_position)))
)
