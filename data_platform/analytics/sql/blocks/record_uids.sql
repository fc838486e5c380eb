-- A row per record that has a log.record.uid. ULIDs and UUIDs of version 7 begin with their time, until 2039 with "01":
-- their `slot` is some 17 minutes or 5 hours of it. A few random ids begin so, too, and have slots of their own.
SELECT
    service_name AS service,
    {local_day} AS day,
    if(
        startsWith(assumeNotNull(record_uid), '01'),
        byteSwap(reinterpretAsUInt32(substring(assumeNotNull(record_uid), 3, 4))),
        0
    ) AS slot,
    cityHash64(service_name, assumeNotNull(record_uid)) AS hash
FROM analytics.events
WHERE service_name IN {services:Array(String)}
    AND _ds BETWEEN {first_ds:Date} AND {last_ds:Date}
    AND record_uid IS NOT NULL
    AND (service_name, day) IN (SELECT service, day FROM targets)
