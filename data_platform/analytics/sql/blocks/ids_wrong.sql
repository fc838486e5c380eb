-- Services whose ids and users do not correspond one to one, or whose ids are not 1, 2, 3, ...; the right answer is none.
SELECT service, count(), max(id), groupBitmap(id), uniqExact({user})
FROM analytics_blocks.user_ids
WHERE service IN {services:Array(String)}
GROUP BY service
HAVING count() != max(id) OR count() != groupBitmap(id) OR count() != uniqExact({user})
