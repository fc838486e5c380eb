SELECT
    day AS activity_date, toUInt64(count()) AS sessions, toUInt64(uniqExactArray(s.users)) AS users,
    toUInt64(sum(s.events)) AS events, sum(s.events) / count() AS events_mean,
    toUInt64(arraySort(groupArray(s.events))[intDiv(count() * 50 + 99, 100)]) AS events_median,
    toUInt64(arraySort(groupArray(s.events))[intDiv(count() * 90 + 99, 100)]) AS events_p90,
    toUInt64(arraySort(groupArray(s.events))[intDiv(count() * 99 + 99, 100)]) AS events_p99,
    toUInt64(max(s.events)) AS events_max,
    sum(duration_ns) / count() / 1e9 AS duration_mean_s,
    arraySort(groupArray(duration_ns))[intDiv(count() * 50 + 99, 100)] / 1e9 AS duration_median_s,
    arraySort(groupArray(duration_ns))[intDiv(count() * 90 + 99, 100)] / 1e9 AS duration_p90_s,
    toUInt64(countIf(s.events = 1)) AS single_event_sessions
FROM ({sessions}) AS s
GROUP BY day
