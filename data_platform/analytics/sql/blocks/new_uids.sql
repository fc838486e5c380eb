-- The hashes of records as seen_uids has them.
SELECT service, toUInt32(bitShiftRight(hash, 48)) AS bucket, groupArray(toUInt32(hash)) AS rests
FROM
(
{uids}
)
GROUP BY service, bucket
