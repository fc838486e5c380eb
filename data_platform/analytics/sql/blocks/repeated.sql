-- The hashes of records that stand more than once, on the staged days or with a copy on one of `targets`.
SELECT hash
FROM
(
    SELECT hash FROM {record_uids}
    UNION ALL
    SELECT hash FROM analytics_blocks.record_uids
    WHERE day IN (SELECT day FROM targets) AND (service, day) IN (SELECT service, day FROM targets)
        AND hash IN (SELECT hash FROM {record_uids})
)
GROUP BY hash
HAVING count() > 1
