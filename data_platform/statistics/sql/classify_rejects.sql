-- The well-formed records that are not applied, each with the first reason that holds: its user stands twice, is not
-- there, is not active. The malformed ones are among the rejects already.
INSERT INTO {rejects} (line, lines, error_class, "column", value, rule, reason)
WITH twice AS (
    SELECT user_id, count(*) AS times, array_agg(line ORDER BY line) AS at_lines
    FROM {raw} GROUP BY user_id HAVING count(*) > 1
)
SELECT
    r.line,
    1,
    CASE WHEN t.user_id IS NULL AND u.user_id IS NULL THEN 'UserNotFoundError' ELSE 'ValidationError' END,
    'user_id',
    r.user_id,
    CASE
        WHEN t.user_id IS NOT NULL THEN 'duplicate_user'
        WHEN u.user_id IS NULL THEN 'user_not_found'
        ELSE 'inactive_user'
    END,
    CASE
        WHEN t.user_id IS NOT NULL THEN concat(
            'the user stands ', t.times, ' times in the file (lines ', array_to_string(t.at_lines[1:10], ', '),
            CASE WHEN t.times > 10 THEN ', ...' END, '); none of them is applied'
        )
        WHEN u.user_id IS NULL THEN 'there is no such user'
        ELSE 'the user is not active'
    END
FROM {raw} AS r
LEFT JOIN twice AS t ON t.user_id = r.user_id
LEFT JOIN users AS u ON u.user_id = r.user_id
WHERE r.login_count IS NOT NULL AND NOT EXISTS (SELECT FROM {rows} AS g WHERE g.user_id = r.user_id)
