-- The users of a day as a bitmap of their dense ids.
SELECT service, day, groupBitmapState(id) AS users
FROM
(
    SELECT service, day, id FROM {day_ids} WHERE id != 0
    UNION ALL
    SELECT days.service AS service, days.day AS day, ids.id AS id
    FROM (SELECT service, day, user_id FROM {day_ids} WHERE id = 0) AS days
    INNER JOIN {fresh_ids} AS ids ON ids.service = days.service AND ids.user_id = days.user_id
)
GROUP BY service, day
