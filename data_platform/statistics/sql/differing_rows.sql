-- The first rows that differ, each with the file whose chunk wrote it last: the one that was ending when it was written.
SELECT c.user_id, c.login_count, c.post_count, c.found_login_count, c.found_post_count, c.updated_at, f.file_id, f.url
FROM (SELECT * FROM ({compared}) AS compared WHERE differs ORDER BY user_id LIMIT {limit}) AS c
LEFT JOIN LATERAL (
    SELECT p.file_id, 's3://' || p.bucket || '/' || p.key AS url
    FROM batch_jobs AS b
    JOIN processing_metadata AS p USING (run_id)
    WHERE c.user_id BETWEEN b.first_user_id AND b.last_user_id AND b.status = 'DONE'
        AND c.updated_at BETWEEN p.started_at AND b.finished_at
    ORDER BY b.finished_at
    LIMIT 1
) AS f ON true
ORDER BY c.user_id
