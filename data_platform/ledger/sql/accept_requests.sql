-- Accepts the requests whose id is new, with their line in the history, and tells of all that were asked for how they
-- stand: one statement, so one round trip and one commit for all that arrived together. Ids in order, so that two
-- batches that share some never wait for each other crosswise. An id that another transaction is accepting right now
-- is in neither half: it is asked for again.
WITH wanted AS (
    SELECT * FROM jsonb_to_recordset(CAST(:wanted AS jsonb))
        AS w (request_id text, caller text, body_hash text, sql text, options jsonb)
), accepted AS (
    INSERT INTO unload_requests (request_id, caller, body_hash, sql, options, attempts_left)
    SELECT request_id, caller, decode(body_hash, 'hex'), sql, options, :attempts FROM wanted ORDER BY request_id
    ON CONFLICT (request_id) DO NOTHING
    RETURNING {columns}
), noted AS (
    INSERT INTO unload_changes (request_id, attempt, status, actor)
    SELECT request_id, 0, 'PENDING', caller FROM accepted
)
SELECT {columns}, true AS accepted FROM accepted
UNION ALL
SELECT {columns}, false FROM unload_requests WHERE request_id IN (SELECT request_id FROM wanted)
