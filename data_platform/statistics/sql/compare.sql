-- Every row of the file that had to be applied, as read a second time, against the table: how many, how many differ.
-- That who has counts is a user is held by the foreign key, so only of the others is it asked.
SELECT count(*), count(*) FILTER (
    WHERE t.user_id IS NULL OR (t.login_count, t.post_count) IS DISTINCT FROM (f.login_count, f.post_count)
)
FROM (SELECT *, count(*) OVER (PARTITION BY user_id) AS times FROM {second_reading}) AS f
LEFT JOIN user_statistics AS t ON t.user_id = f.user_id
WHERE f.times = 1 AND f.login_count IS NOT NULL
    AND CASE WHEN t.user_id IS NULL OR {refuse_inactive}
        THEN EXISTS (SELECT FROM users AS u WHERE u.user_id = f.user_id AND (u.is_active OR NOT {refuse_inactive}))
        ELSE true
    END
