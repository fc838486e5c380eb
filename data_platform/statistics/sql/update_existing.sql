-- Users of one chunk that have counts already, where these differ.
UPDATE user_statistics AS t
SET login_count = s.login_count, post_count = s.post_count, updated_at = clock_timestamp()
FROM {rows} AS s
WHERE s.user_id BETWEEN %(first)s AND %(last)s
    AND t.user_id BETWEEN %(first)s AND %(last)s
    AND t.user_id = s.user_id
    AND (t.login_count, t.post_count) IS DISTINCT FROM (s.login_count, s.post_count)
