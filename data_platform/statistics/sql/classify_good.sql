-- The rows that will be applied, sorted by user and cut into chunks. A user that stands twice in the file, whether
-- well-formed each time or not, has none. raw: every record that names its user (pg_temp, as COPY took it in).
CREATE TABLE {rows} AS
SELECT
    r.line, r.user_id, r.login_count, r.post_count,
    ((row_number() OVER (ORDER BY r.user_id) - 1) / {chunk_rows})::int AS chunk
FROM (SELECT *, count(*) OVER (PARTITION BY user_id) AS times FROM {raw}) AS r
JOIN users AS u ON u.user_id = r.user_id
WHERE r.times = 1 AND r.login_count IS NOT NULL AND (u.is_active OR NOT {refuse_inactive})
ORDER BY r.user_id
