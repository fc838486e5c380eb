-- What ties a day to others: records that may have copies there, sessions that may go on there, and whether a user's
-- events without session.id fill the day, so that a session may reach over it.
WITH {kept}
SELECT DISTINCT kind, key, local_day, {keys}
FROM
(
    SELECT 'record' AS kind, record_uid AS key, local_day FROM raw WHERE record_uid IS NOT NULL
    UNION ALL
    SELECT 'session' AS kind, session_id AS key, local_day FROM raw WHERE session_id IS NOT NULL
    UNION ALL
    SELECT 'fills' AS kind, '' AS key, local_day
    FROM raw
    WHERE session_id IS NULL AND user_id IS NOT NULL
    GROUP BY user_id, local_day
    HAVING max(event_time) - min(event_time) >= 72000000000000
) AS tied
WHERE local_day IN {days} AND local_day >= {min_data_date}
