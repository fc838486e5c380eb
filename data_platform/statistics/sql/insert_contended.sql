-- As insert_new, when a run of another file inserts the same users at the same time.
WITH written AS (
    INSERT INTO user_statistics AS t (user_id, login_count, post_count, updated_at)
    SELECT s.user_id, s.login_count, s.post_count, clock_timestamp()
    FROM {rows} AS s
    WHERE s.user_id BETWEEN %(first)s AND %(last)s
        AND NOT EXISTS (
            SELECT FROM user_statistics AS e
            WHERE e.user_id = s.user_id AND e.user_id BETWEEN %(first)s AND %(last)s
        )
    ORDER BY s.user_id
    ON CONFLICT (user_id) DO UPDATE
    SET login_count = excluded.login_count, post_count = excluded.post_count, updated_at = excluded.updated_at
    WHERE (t.login_count, t.post_count) IS DISTINCT FROM (excluded.login_count, excluded.post_count)
    RETURNING (t.xmax = 0) AS inserted
)
SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted) FROM written
