-- One row per user and day of activity.
WITH {kept}
SELECT DISTINCT user_id, local_day, {keys}
FROM kept
WHERE user_id IS NOT NULL AND local_day IN {days}
