-- The users of the days with their ids; 0: has none yet. Only these days' users are held in memory, those of all days
-- pass by.
SELECT days.service AS service, days.day AS day, days.user_id AS user_id, ids.id AS id
FROM (SELECT service, user_id, id FROM analytics_blocks.user_ids WHERE service IN {services:Array(String)}) AS ids
RIGHT JOIN {user_days} AS days ON days.service = ids.service AND days.user_id = ids.user_id
