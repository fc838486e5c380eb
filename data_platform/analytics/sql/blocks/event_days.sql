-- Events and distinct users by day and event name.
SELECT service, day, event_name, count() AS events, uniqExactIf(assumeNotNull(user_id), user_id IS NOT NULL) AS users
FROM {kept}
GROUP BY service, day, event_name
