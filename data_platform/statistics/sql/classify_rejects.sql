-- All other records, each with the first reason that holds: its text, its user standing twice, its user.
INSERT INTO {rejects} (line, lines, error_class, "column", value, rule, reason)
WITH twice AS (
    SELECT user_id, count(*) AS times, array_agg(line ORDER BY line) AS at_lines
    FROM {raw} WHERE user_id IS NOT NULL GROUP BY user_id HAVING count(*) > 1
)
SELECT
    r.line,
    coalesce(r.lines, 1),
    CASE WHEN r.rule IS NULL AND t.user_id IS NULL AND u.user_id IS NULL
        THEN 'UserNotFoundError' ELSE 'ValidationError' END,
    CASE WHEN r.rule IS NOT NULL THEN r."column" ELSE 'user_id' END,
    CASE WHEN r.rule IS NOT NULL THEN r.value ELSE r.user_id END,
    CASE
        WHEN r.rule IS NOT NULL THEN r.rule
        WHEN t.user_id IS NOT NULL THEN 'duplicate_user'
        WHEN u.user_id IS NULL THEN 'user_not_found'
        ELSE 'inactive_user'
    END,
    CASE
        WHEN r.rule IS NOT NULL THEN r.reason
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
WHERE NOT EXISTS (SELECT FROM {rows} AS g WHERE g.user_id = r.user_id)
