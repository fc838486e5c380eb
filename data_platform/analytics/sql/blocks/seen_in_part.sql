-- The days of one part of what was seen that have a key of `sought`. The hints choose what is read and cost nothing a row.
SELECT seen.day AS day
FROM (SELECT key, day FROM {seen} WHERE indexHint({part}) AND indexHint({ends})) AS seen
INNER JOIN {sought} AS sought ON sought.key = seen.key
