-- The events of the days to build, each once: of records with the same log.record.uid the losers are left out. `place`
-- orders them by (time, object key, position): that is the order they lie in, so nothing is sorted.
SELECT *, rowNumberInAllBlocks() AS place
FROM
(
    SELECT
        service_name AS service,
        {local_day} AS day,
        event_time,
        event_name,
        user_id,
        session_id
    FROM analytics.events
    WHERE service_name IN {services:Array(String)}
        AND _ds BETWEEN {first_ds:Date} AND {last_ds:Date}
        AND (service_name, day) IN (SELECT service, day FROM targets)
        AND (source_object, source_position) NOT IN (SELECT source_object, source_position FROM {losers})
    ORDER BY service_name, event_time, source_object, source_position
)
-- A number by order needs the order: the sort is not redundant.
SETTINGS query_plan_remove_redundant_sorting = 0
