-- The users of the days with their ids; 0: has none yet. Only the ids of these days' users are held in memory.
SELECT days.service AS service, days.day AS day, days.user_id AS user_id, ids.id AS id
FROM {user_days} AS days
ANY LEFT JOIN
(
    SELECT service, user_id, id FROM analytics_blocks.user_ids
    WHERE service IN {services:Array(String)} AND user_id IN (SELECT user_id FROM {user_days})
) AS ids ON ids.service = days.service AND ids.user_id = days.user_id
