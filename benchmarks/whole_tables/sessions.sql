-- Not a table: the sessions of the raw events, as three of the tables need them.
SELECT
    min(event_date) AS day,
    count() AS events,
    toUnixTimestamp64Nano(max(event_time)) - toUnixTimestamp64Nano(min(event_time)) AS duration_ns,
    countIf(event_name = 'product_view') > 0 AS viewed,
    viewed AND countIf(event_name = 'add_to_cart') > 0
        AND minIf((event_time, source_object, source_position), event_name = 'product_view')
            < maxIf((event_time, source_object, source_position), event_name = 'add_to_cart') AS carted,
    groupUniqArrayIf(assumeNotNull(user_id), user_id IS NOT NULL) AS users
FROM
(
    SELECT 'id' AS kind, assumeNotNull(session_id) AS key, 0 AS piece,
        event_date, event_time, event_name, user_id, source_object, source_position
    FROM analytics.events
    WHERE service_name = 'bench' AND session_id IS NOT NULL
    UNION ALL
    SELECT 'gap' AS kind, key, sum(starts) OVER (PARTITION BY key ORDER BY event_time, source_object, source_position) AS piece,
        event_date, event_time, event_name, user_id, source_object, source_position
    FROM
    (
        SELECT assumeNotNull(user_id) AS key, event_date, event_time, event_name, user_id, source_object, source_position,
            toUnixTimestamp64Nano(event_time) - lagInFrame(toUnixTimestamp64Nano(event_time), 1, toUnixTimestamp64Nano(event_time)) OVER (
                PARTITION BY user_id ORDER BY event_time, source_object, source_position
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
            ) > 30 * 60 * 1000000000 AS starts
        FROM analytics.events
        WHERE service_name = 'bench' AND session_id IS NULL AND user_id IS NOT NULL
    )
)
GROUP BY kind, key, piece
