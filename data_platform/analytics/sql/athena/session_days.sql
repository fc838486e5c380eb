-- Sessions and their distinct users by day, from the sessions.
SELECT started.service AS service, started.day AS day, started.sessions AS sessions, coalesce(people.users, 0) AS users
FROM (SELECT service, day, count(*) AS sessions FROM {sessions} AS counted GROUP BY service, day) AS started
LEFT JOIN
(
    SELECT spread.service AS service, spread.day AS day, count(DISTINCT person.id) AS users
    FROM {sessions} AS spread
    CROSS JOIN UNNEST(spread.users) AS person(id)
    GROUP BY spread.service, spread.day
) AS people ON people.service = started.service AND people.day = started.day
