-- Every row that had to be applied, beside what the table has of it. That who has counts is a user is held by the foreign
-- key, so only of the others is it asked.
SELECT w.user_id, w.login_count, w.post_count, t.login_count AS found_login_count, t.post_count AS found_post_count,
    t.updated_at,
    t.user_id IS NULL OR (t.login_count, t.post_count) IS DISTINCT FROM (w.login_count, w.post_count) AS differs
FROM {wanted} AS w
LEFT JOIN user_statistics AS t ON t.user_id = w.user_id
WHERE CASE WHEN t.user_id IS NULL OR {refuse_inactive}
    THEN EXISTS (SELECT FROM users AS u WHERE u.user_id = w.user_id AND (u.is_active OR NOT {refuse_inactive}))
    ELSE true
END
