-- The days that share a record or a session with the given ones, and the given ones that somebody fills.
SELECT DISTINCT mine.kind AS kind, mine.local_day AS day, other.local_day AS other_day
FROM
(
    SELECT kind, key, local_day FROM {links}
    WHERE {own_partitions} AND service = {service} AND local_day IN {days} AND local_day >= {min_data_date}
) AS mine
INNER JOIN
(
    SELECT kind, key, local_day FROM {links}
    WHERE {partitions} AND service = {service} AND local_day >= {min_data_date}
) AS other ON other.kind = mine.kind AND other.key = mine.key
WHERE (mine.kind = 'fills') = (mine.local_day = other.local_day)
