SELECT
    day AS activity_date, toUInt64(count()) AS sessions, toUInt64(countIf(viewed)) AS sessions_viewed,
    toUInt64(countIf(carted)) AS sessions_carted, sessions_viewed / sessions AS view_rate,
    if(sessions_viewed = 0, NULL, sessions_carted / sessions_viewed) AS cart_rate,
    sessions_carted / sessions AS session_to_cart_rate
FROM ({sessions})
GROUP BY day
