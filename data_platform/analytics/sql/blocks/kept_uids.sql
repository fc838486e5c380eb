-- A row per record of `kept` that has a log.record.uid.
SELECT service, day, assumeNotNull(uid_hash) AS hash FROM {kept} WHERE uid_hash IS NOT NULL
