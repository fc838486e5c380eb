-- In place of `ages`: users of each day, and those who have at least the age of each cohort.
SELECT
    active.service AS service,
    active.day AS day,
    count(*) AS all_users,
    count_if(date_diff('day', known.first_day, active.day) >= {recent}) AS from_recent,
    count_if(date_diff('day', known.first_day, active.day) >= {active}) AS from_active,
    count_if(date_diff('day', known.first_day, active.day) >= {veteran}) AS from_veteran
FROM analytics_blocks.user_days AS active
INNER JOIN
(
    SELECT service, user_id, min(day) AS first_day
    FROM analytics_blocks.user_days
    GROUP BY service, user_id
) AS known ON known.service = active.service AND known.user_id = active.user_id
GROUP BY active.service, active.day
