-- Services whose ids and users do not correspond one to one, or whose ids are not 1, 2, 3, ...; the right answer is none.
SELECT service, count() AS rows, max(id), groupBitmap(id) AS ids, length(arrayCompact(arraySort(groupArray({user})))) AS users
FROM analytics_blocks.user_ids
WHERE service IN {services:Array(String)}
GROUP BY service
HAVING rows != max(id) OR rows != ids OR rows != users
-- Arrays of more than 16 million elements cannot be spilled.
SETTINGS max_bytes_before_external_group_by = 0, max_bytes_ratio_before_external_group_by = 0
