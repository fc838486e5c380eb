-- Events and users of a service by day, from the curated events alone.
WITH {kept}
SELECT local_day AS day, count(*) AS events, count(DISTINCT user_id) AS users
FROM kept
WHERE local_day IN {days}
GROUP BY local_day
