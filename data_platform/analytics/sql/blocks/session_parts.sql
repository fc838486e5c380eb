-- What of a session lies in the day. A session is a session.id; a user's events without one are cut, among themselves,
-- at gaps of more than 30 minutes; events with neither are in no session. Ties in time keep (object key, position):
-- `place` is the order by all three. `pieces`: id_pieces or gap_pieces.
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
    groupUniqArray(user_id) AS users
FROM
(
{pieces}
)
GROUP BY service, day, kind, key, piece
