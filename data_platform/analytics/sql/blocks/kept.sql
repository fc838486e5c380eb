-- The events of the days to build, each once: `unless` leaves out the records that do not count. `place` orders them by
-- (time, object key, position): that is the order they lie in, so nothing is sorted.
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
        AND {within}
{unless}
    ORDER BY service_name, event_time, source_object, source_position
)
-- A number by order needs the order: the sort is not redundant.
SETTINGS query_plan_remove_redundant_sorting = 0
