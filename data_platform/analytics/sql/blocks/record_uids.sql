-- A row per record that has a log.record.uid.
SELECT
    service_name AS service,
    {local_day} AS day,
    cityHash64(service_name, assumeNotNull(record_uid)) AS hash,
    cityHash64(source_object, source_position) AS origin
FROM analytics.events
WHERE service_name IN {services:Array(String)}
    AND _ds BETWEEN {first_ds:Date} AND {last_ds:Date}
    AND record_uid IS NOT NULL
    AND (service_name, day) IN (SELECT service, day FROM targets)
