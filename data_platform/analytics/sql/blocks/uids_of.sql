-- Of the staged records those of `piece`, whose days had none before; one of another piece among them does no harm.
SELECT service, hash
FROM {record_uids}
WHERE day BETWEEN {first:Date} AND {last:Date} AND service IN (SELECT service FROM piece)
