-- One row per user and day of activity.
SELECT DISTINCT activity_date, assumeNotNull(user_id) AS user_id
FROM events
WHERE user_id IS NOT NULL
