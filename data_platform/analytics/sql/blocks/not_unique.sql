-- A row if a record is staged twice. Hardly any two have the same key; sorting finds them in a third of the time of uniqExact.
SELECT 1
FROM {record_uids}
WHERE key IN
(
    SELECT arrayJoin(arrayFilter((one, next) -> one = next, arrayPopBack(keys), arrayPopFront(keys)))
    FROM (SELECT arraySort(groupArray(key)) AS keys FROM {record_uids})
)
GROUP BY key, rest
HAVING count() > 1
LIMIT 1
