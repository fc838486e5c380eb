-- Of records with the same log.record.uid only the first by (object key, position) counts; these are the others.
SELECT source_object, source_position
FROM
(
    SELECT
        source_object,
        source_position,
        row_number() OVER (PARTITION BY service_name, record_uid ORDER BY source_object, source_position) AS place
    FROM analytics.events
    WHERE service_name IN {services:Array(String)}
        AND _ds BETWEEN {first_ds:Date} AND {last_ds:Date}
        AND record_uid IS NOT NULL
        AND {record_key} IN (SELECT key FROM {repeated})
        AND (
            service_name,
            {local_day}
        ) IN (SELECT service, day FROM targets)
)
WHERE place > 1
