-- Totals of every UNLOAD that runs now.
SELECT query_id, unloaded_location, unloaded_rows, unloaded_files_size
FROM sys_unload_history
WHERE status = 'running'
