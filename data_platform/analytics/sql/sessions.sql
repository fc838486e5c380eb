-- One row per session with the day it started. A session is a session.id; a user's events without one are cut, among
-- themselves, at gaps of more than 30 minutes; events with neither are in no session.
SELECT toDate(min(event_time), {time_zone:String}) AS activity_date, session
FROM
(
    SELECT
        event_time,
        if(
            session_id IS NOT NULL,
            concat('s:', assumeNotNull(session_id)),
            concat('u:', assumeNotNull(user_id), '#', toString(sum(starts) OVER chain))
        ) AS session
    FROM
    (
        SELECT
            event_time,
            user_id,
            session_id,
            source_object,
            source_position,
            -- 9 digits of a second: the gap is compared in nanoseconds
            toUnixTimestamp64Nano(event_time)
                - lagInFrame(toUnixTimestamp64Nano(event_time), 1, -4000000000000000000) OVER previous
                > 30 * 60 * 1000000000 AS starts
        FROM events
        WHERE session_id IS NOT NULL OR user_id IS NOT NULL
        WINDOW previous AS (
            PARTITION BY session_id, user_id ORDER BY event_time, source_object, source_position
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        )
    )
    WINDOW chain AS (
        PARTITION BY session_id, user_id ORDER BY event_time, source_object, source_position
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
)
GROUP BY session
