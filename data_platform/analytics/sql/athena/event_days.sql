-- Events and distinct users by day and event name.
WITH {kept}
SELECT event_name, count(*) AS events, count(DISTINCT user_id) AS users, local_day, {keys}
FROM kept
WHERE local_day IN {days}
GROUP BY event_name, local_day
