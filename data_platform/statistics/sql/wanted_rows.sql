-- Of the file as read a second time the rows that have to be applied if their users are there: well-formed, of users
-- that stand in it once.
CREATE TEMP TABLE {wanted} AS
SELECT user_id, login_count, post_count
FROM (SELECT *, count(*) OVER (PARTITION BY user_id) AS times FROM {as_read}) AS f
WHERE times = 1 AND login_count IS NOT NULL
