-- The events of users without a session.id; `piece` counts the gaps before.
SELECT
    service, day, 'gap' AS kind, key,
    sum(starts) OVER (
        PARTITION BY service, day, key ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS piece,
    event_time, event_name, user_id, place
FROM
(
    SELECT
        service, day, assumeNotNull(user_id) AS key, event_time, event_name, user_id, place,
        -- in nanoseconds, 9 digits of a second; the first of the day has none before it
        toUnixTimestamp64Nano(event_time)
            - lagInFrame(toUnixTimestamp64Nano(event_time), 1, toUnixTimestamp64Nano(event_time)) OVER (
                PARTITION BY service, day, user_id ORDER BY place
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
            ) > 30 * 60 * 1000000000 AS starts
    FROM {kept}
    WHERE session_id IS NULL AND user_id IS NOT NULL
)
