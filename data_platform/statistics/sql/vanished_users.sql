-- Users of one chunk that were removed after the file was read: their rows become rejects.
WITH gone AS (
    DELETE FROM {rows} AS s
    WHERE s.user_id BETWEEN %(first)s AND %(last)s
        AND NOT EXISTS (SELECT FROM users AS u WHERE u.user_id = s.user_id)
    RETURNING s.line, s.user_id
)
INSERT INTO {rejects} (line, lines, error_class, "column", value, rule, reason, chunk)
SELECT line, 1, 'UserNotFoundError', 'user_id', user_id, 'user_not_found', 'the user was removed meanwhile', %(chunk)s
FROM gone
