-- The days that have a key of `sought`.
SELECT DISTINCT day FROM {seen} PREWHERE key IN (SELECT key FROM {sought}) WHERE indexHint({ends})
-- The keys are all over the index.
SETTINGS use_index_for_in_with_subqueries = 0
