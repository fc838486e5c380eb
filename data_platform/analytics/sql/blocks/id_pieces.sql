-- The events of sessions that have a session.id.
SELECT
    service, day, 'id' AS kind, assumeNotNull(session_id) AS key, 0 AS piece,
    event_time, event_name, user_id, place
FROM {kept}
WHERE session_id IS NOT NULL
