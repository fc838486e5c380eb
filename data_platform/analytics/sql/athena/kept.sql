-- The events of some days, each once: of records with the same log.record.uid only the first by (object key, position).
-- event_time is in nanoseconds since 1970; a day is found by the boundaries of the service's days, in seconds.
raw AS
(
    SELECT
        element_at({labels}, CAST(width_bucket(CAST(event_time / 1000000000 AS double), {starts}) AS integer)) AS local_day,
        event_time, event_name, user_id, session_id, record_uid, source_object, source_position
    FROM {events}
    WHERE {partitions} AND "$path" IN {paths} AND service_name = {service}
),
numbered AS
(
    SELECT
        *,
        row_number() OVER (
            PARTITION BY coalesce(concat('u', record_uid), concat('p', source_object, '#', CAST(source_position AS varchar)))
            ORDER BY source_object, source_position
        ) AS place
    FROM raw
    WHERE local_day >= {min_data_date}
),
kept AS
(
    SELECT local_day, event_time, event_name, user_id, session_id, source_object, source_position
    FROM numbered
    WHERE place = 1
)
