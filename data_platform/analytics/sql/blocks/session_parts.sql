-- What of a session lies in the day. A session is a session.id; a user's events without one are cut, among themselves,
-- at gaps of more than 30 minutes; events with neither are in no session. Ties in time keep (object key, position):
-- `place` is the order by all three.
SELECT
    service,
    day,
    kind,
    cityHash64(service, kind, key) AS hash,
    key,
    min(event_time) AS started,
    max(event_time) AS ended,
    count() AS events,
    countIf(event_name = {view:String}) > 0 AS viewed,
    countIf(event_name = {cart:String}) > 0 AS carts,
    minIf(event_time, event_name = {view:String}) AS first_view,
    maxIf(event_time, event_name = {cart:String}) AS last_cart,
    viewed AND carts
        AND minIf(place, event_name = {view:String}) < maxIf(place, event_name = {cart:String}) AS carted,
    groupUniqArrayIf(assumeNotNull(user_id), user_id IS NOT NULL) AS users
FROM
(
    SELECT
        service, day, 'id' AS kind, assumeNotNull(session_id) AS key, 0 AS piece,
        event_time, event_name, user_id, place
    FROM {kept}
    WHERE session_id IS NOT NULL
    UNION ALL
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
)
GROUP BY service, day, kind, key, piece
