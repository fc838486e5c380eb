-- A row if of all staged records two have the same `by`. Sorting takes a third of the time and memory of uniqExact.
SELECT 1
FROM (SELECT count() AS records, length(arrayCompact(arraySort(groupArray({by})))) AS different FROM {record_uids})
WHERE records != different
