-- A row per record that has a log.record.uid.
SELECT service_name AS service, {local_day} AS day, {record_key} AS key, {record_rest} AS rest
FROM analytics.events
WHERE service_name IN {services:Array(String)}
    AND _ds BETWEEN {first_ds:Date} AND {last_ds:Date}
    AND record_uid IS NOT NULL
    AND {within}
