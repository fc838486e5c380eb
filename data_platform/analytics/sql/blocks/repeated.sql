-- The records that stand more than once, on the staged days or with a copy on one of `targets`; by key, which few others
-- share.
SELECT key
FROM
(
    SELECT key, rest FROM {record_uids}
    UNION ALL
    SELECT key, rest FROM analytics_blocks.record_uids
    WHERE day IN (SELECT day FROM targets) AND (service, day) IN (SELECT service, day FROM targets)
        AND key IN (SELECT key FROM {record_uids})
)
GROUP BY key, rest
HAVING count() > 1
