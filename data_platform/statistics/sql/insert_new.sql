-- Users of one chunk that have no counts yet. One that a run of another file inserts in between is an error here: asking
-- for it in each row (ON CONFLICT) costs a fifth of the time, see insert_contended.
INSERT INTO user_statistics (user_id, login_count, post_count, updated_at)
SELECT s.user_id, s.login_count, s.post_count, clock_timestamp()
FROM {rows} AS s
WHERE s.user_id BETWEEN %(first)s AND %(last)s
    AND NOT EXISTS (
        SELECT FROM user_statistics AS e
        WHERE e.user_id = s.user_id AND e.user_id BETWEEN %(first)s AND %(last)s
    )
ORDER BY s.user_id
