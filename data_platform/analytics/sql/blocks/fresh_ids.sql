-- Users that have no id yet get the next ones of their service.
SELECT
    fresh.service AS service,
    fresh.user_id AS user_id,
    toUInt32(taken.highest + row_number() OVER (PARTITION BY fresh.service ORDER BY fresh.user_id)) AS id
FROM (SELECT DISTINCT service, user_id FROM {day_ids} WHERE id = 0) AS fresh
LEFT JOIN
(
    SELECT service, max(id) AS highest FROM analytics_blocks.user_ids WHERE service IN {services:Array(String)}
    GROUP BY service
) AS taken ON taken.service = fresh.service
