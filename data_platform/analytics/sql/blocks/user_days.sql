-- One row per user and day of activity.
SELECT service, day, assumeNotNull(kept.user_id) AS user_id
FROM {kept} AS kept
WHERE kept.user_id IS NOT NULL
GROUP BY service, day, kept.user_id
