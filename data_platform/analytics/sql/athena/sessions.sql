-- One row per session, on the day it started. A session is a session.id; a user's events without one are cut, among
-- themselves, at gaps of more than 30 minutes; events with neither are in no session. Ties in time keep (object key,
-- position).
WITH {kept},
chained AS
(
    SELECT
        *,
        event_time - lag(event_time) OVER (PARTITION BY user_id ORDER BY event_time, source_object, source_position)
            > 1800000000000 AS starts
    FROM kept
    WHERE session_id IS NULL AND user_id IS NOT NULL
),
pieces AS
(
    SELECT 'id' AS kind, session_id AS key, CAST(0 AS bigint) AS piece, local_day, event_time, event_name, user_id,
        source_object, source_position
    FROM kept
    WHERE session_id IS NOT NULL
    UNION ALL
    SELECT 'gap' AS kind, user_id AS key,
        sum(if(starts, CAST(1 AS bigint), CAST(0 AS bigint))) OVER (
            PARTITION BY user_id ORDER BY event_time, source_object, source_position ROWS UNBOUNDED PRECEDING
        ) AS piece,
        local_day, event_time, event_name, user_id, source_object, source_position
    FROM chained
),
placed AS
(
    SELECT
        *,
        row_number() OVER (
            PARTITION BY kind, key, piece ORDER BY event_time, source_object, source_position
        ) AS place
    FROM pieces
),
sessions AS
(
    SELECT
        count(*) AS events,
        max(event_time) - min(event_time) AS duration_ns,
        count_if(event_name = {view}) > 0 AS viewed,
        coalesce(min(if(event_name = {view}, place)) <= max(if(event_name = {cart}, place)), false) AS carted,
        array_agg(DISTINCT user_id) FILTER (WHERE user_id IS NOT NULL) AS users,
        min_by(local_day, place) AS local_day
    FROM placed
    GROUP BY kind, key, piece
)
SELECT events, duration_ns, viewed, carted, users, local_day, {keys}
FROM sessions
WHERE local_day IN {days}
