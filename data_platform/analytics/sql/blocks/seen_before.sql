-- Whether a record was ever seen that may be a copy of one of `new_uids`. No answer: there are none. Two numbers are
-- joined by their sum, which is quicker than by both; what it brings together too many is told apart by nothing, for a
-- wrong suspicion costs a look, no more.
SELECT 1
FROM analytics_blocks.seen_uids AS seen
INNER JOIN {new_uids} AS fresh ON fresh.bucket + cityHash64(fresh.service) = seen.bucket + cityHash64(seen.service)
WHERE seen.service IN {services:Array(String)} AND hasAny(seen.rests, fresh.rests)
LIMIT 1
