-- In place of `days`: of the users whose first day it is, how many there are, came on day +N, or on day +N or later.
-- What is a bitmap in ClickHouse is here the count that is read from it.
SELECT
    known.service AS service,
    known.first_day AS day,
    count_if(active.day = known.first_day) AS cohort,
    count_if(active.day = date_add('day', 1, known.first_day)) AS on_d1,
    count_if(active.day = date_add('day', 7, known.first_day)) AS on_d7,
    count_if(active.day = date_add('day', 30, known.first_day)) AS on_d30,
    count_if(active.day = known.first_day AND known.newest_day >= date_add('day', 1, known.first_day)) AS from_d1,
    count_if(active.day = known.first_day AND known.newest_day >= date_add('day', 7, known.first_day)) AS from_d7,
    count_if(active.day = known.first_day AND known.newest_day >= date_add('day', 30, known.first_day)) AS from_d30
FROM analytics_blocks.user_days AS active
INNER JOIN
(
    SELECT service, user_id, min(day) AS first_day, max(day) AS newest_day
    FROM analytics_blocks.user_days
    GROUP BY service, user_id
) AS known ON known.service = active.service AND known.user_id = active.user_id
GROUP BY known.service, known.first_day
