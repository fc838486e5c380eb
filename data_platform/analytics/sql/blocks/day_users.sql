-- The users of a day as a bitmap of their dense ids. Only the ids of these days' users are held in memory.
SELECT days.service AS service, days.day AS day, groupBitmapState(ids.id) AS users
FROM {user_days} AS days
INNER JOIN
(
    SELECT service, user_id, id FROM analytics_blocks.user_ids
    WHERE service IN {services:Array(String)} AND user_id IN (SELECT user_id FROM {user_days})
) AS ids ON ids.service = days.service AND ids.user_id = days.user_id
GROUP BY service, day
