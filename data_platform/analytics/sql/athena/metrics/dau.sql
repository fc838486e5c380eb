-- In place of `people`: users of each day, and those whose first day it is, from the user-days.
SELECT
    active.service AS service,
    active.day AS day,
    count(*) AS dau,
    count_if(active.day = known.first_day) AS new_users
FROM analytics_blocks.user_days AS active
INNER JOIN
(
    SELECT service, user_id, min(day) AS first_day
    FROM analytics_blocks.user_days
    GROUP BY service, user_id
) AS known ON known.service = active.service AND known.user_id = active.user_id
GROUP BY active.service, active.day
