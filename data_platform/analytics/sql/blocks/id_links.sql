-- Days with parts of the sessions, by session.id, of which a part lies in the given days, as they are or as `staged`.
SELECT DISTINCT service, day
FROM analytics_blocks.session_parts
PREWHERE hash IN
(
    SELECT hash FROM analytics_blocks.session_parts
    WHERE kind = 'id' AND service IN {services:Array(String)}
        AND day IN (SELECT day FROM targets) AND (service, day) IN (SELECT service, day FROM targets)
    UNION ALL
    SELECT hash FROM {staged} WHERE kind = 'id' AND (service, day) IN (SELECT service, day FROM targets)
)
WHERE kind = 'id' AND service IN {services:Array(String)}
-- The hashes are all over the index.
SETTINGS use_index_for_in_with_subqueries = 0
