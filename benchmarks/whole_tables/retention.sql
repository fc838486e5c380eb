WITH (SELECT max(event_date) FROM analytics.events WHERE service_name = 'bench') AS last_day
SELECT
    cohort_date,
    toUInt64(uniqExact(user_id)) AS cohort_size,
    if(cohort_date + 1 > last_day, NULL, toUInt64(uniqExactIf(user_id, day = cohort_date + 1))) AS retained_d1,
    if(cohort_date + 7 > last_day, NULL, toUInt64(uniqExactIf(user_id, day = cohort_date + 7))) AS retained_d7,
    if(cohort_date + 30 > last_day, NULL, toUInt64(uniqExactIf(user_id, day = cohort_date + 30))) AS retained_d30,
    retained_d1 / cohort_size AS rate_d1,
    retained_d7 / cohort_size AS rate_d7,
    retained_d30 / cohort_size AS rate_d30,
    if(cohort_date + 1 > last_day, NULL, toUInt64(uniqExactIf(user_id, day >= cohort_date + 1))) AS retained_d1_unbounded,
    if(cohort_date + 7 > last_day, NULL, toUInt64(uniqExactIf(user_id, day >= cohort_date + 7))) AS retained_d7_unbounded,
    if(cohort_date + 30 > last_day, NULL, toUInt64(uniqExactIf(user_id, day >= cohort_date + 30))) AS retained_d30_unbounded
FROM (SELECT DISTINCT user_id, event_date AS day FROM analytics.events WHERE service_name = 'bench' AND user_id IS NOT NULL) AS active
INNER JOIN
(
    SELECT user_id, min(event_date) AS cohort_date FROM analytics.events
    WHERE service_name = 'bench' AND user_id IS NOT NULL GROUP BY user_id
) AS firsts ON firsts.user_id = active.user_id
GROUP BY cohort_date
