-- conversion: one row per day of session start. viewed: has a product view; carted: add-to-cart after a product view.
SELECT
    service,
    day AS activity_date,
    toUInt64(count()) AS sessions,
    toUInt64(countIf(viewed)) AS sessions_viewed,
    toUInt64(countIf(carted)) AS sessions_carted,
    sessions_viewed / sessions AS view_rate,
    if(sessions_viewed = 0, NULL, sessions_carted / sessions_viewed) AS cart_rate,
    sessions_carted / sessions AS session_to_cart_rate,
    {execution_date:Date} AS execution_date
FROM analytics_blocks.sessions
WHERE service IN {services:Array(String)} AND day IN {days:Array(Date)}
GROUP BY service, day
