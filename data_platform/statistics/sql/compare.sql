-- Every row that had to be applied against the table: how many, how many differ. That who has counts is a user is held
-- by the foreign key, so only of the others is it asked.
SELECT count(*), count(*) FILTER (
    WHERE t.user_id IS NULL OR (t.login_count, t.post_count) IS DISTINCT FROM (w.login_count, w.post_count)
)
FROM {wanted} AS w
LEFT JOIN user_statistics AS t ON t.user_id = w.user_id
WHERE CASE WHEN t.user_id IS NULL OR {refuse_inactive}
    THEN EXISTS (SELECT FROM users AS u WHERE u.user_id = w.user_id AND (u.is_active OR NOT {refuse_inactive}))
    ELSE true
END
