-- What the warehouse knows of the UNLOAD that writes under one prefix; the newest, if it was sent twice.
-- Before its first rows a statement is known by its text alone, of which the view keeps the first 4000 characters.
SELECT h.query_id, h.session_id, trim(h.status) AS status, u.unloaded_rows, u.unloaded_files_size
FROM sys_query_history AS h
LEFT JOIN sys_unload_history AS u ON u.query_id = h.query_id
WHERE h.query_type = 'UNLOAD' AND (u.unloaded_location = %s OR position(%s IN h.query_text) > 0)
ORDER BY h.query_id DESC
LIMIT 1
