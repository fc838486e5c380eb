-- Which of the days have a part of a user's events without session.id that fills its day.
SELECT DISTINCT day
FROM {session_parts}
WHERE kind = 'gap' AND service IN {services:Array(String)} AND day IN {edges:Array(Date)}
    AND toUnixTimestamp64Nano(ended) - toUnixTimestamp64Nano(started) >= {whole_day_ns}
