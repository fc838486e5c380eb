-- Redshift's system tables and views, as far as the platform and the usual clients read them. The front writes what
-- sessions run into the schema redshift_log; users see their own rows, the owner of the database sees all.

SET LOCAL allow_system_table_mods = on;
SET LOCAL client_min_messages = warning;

CREATE SCHEMA IF NOT EXISTS redshift_log;

-- Unlogged: what ran before a crash is of no use after it.
CREATE UNLOGGED TABLE IF NOT EXISTS redshift_log.query (
    query bigint PRIMARY KEY,
    username text NOT NULL,
    pid integer NOT NULL,
    database text NOT NULL,
    label text NOT NULL,
    querytxt text NOT NULL,
    starttime timestamp NOT NULL,
    endtime timestamp,
    status text NOT NULL,  -- running, success, failed, canceled
    error_message text
);
CREATE INDEX IF NOT EXISTS query_pid ON redshift_log.query (pid, query);

-- One value per start: query ids keep growing, also over a crash that empties the tables.
CREATE SEQUENCE IF NOT EXISTS redshift_log.start INCREMENT 1000000;

CREATE UNLOGGED TABLE IF NOT EXISTS redshift_log.unload (
    query bigint PRIMARY KEY,
    location text NOT NULL,
    file_format text NOT NULL,
    compression text NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    files bigint NOT NULL
);

CREATE UNLOGGED TABLE IF NOT EXISTS redshift_log.unload_file (
    query bigint NOT NULL,
    slice integer NOT NULL,
    path text NOT NULL,
    line_count bigint NOT NULL,
    transfer_size bigint NOT NULL,
    PRIMARY KEY (query, path)
);

-- A kill leaves rows that say they run; nothing runs before the first session.
UPDATE redshift_log.query SET status = 'failed', endtime = starttime, error_message = 'the warehouse was restarted'
WHERE status = 'running';
DELETE FROM redshift_log.query WHERE starttime < (now() AT TIME ZONE 'UTC') - interval '7 days';
DELETE FROM redshift_log.unload WHERE query NOT IN (SELECT query FROM redshift_log.query);
DELETE FROM redshift_log.unload_file WHERE query NOT IN (SELECT query FROM redshift_log.query);

CREATE OR REPLACE FUNCTION pg_catalog.pg_last_query_id() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER AS $$
    SELECT coalesce(max(q.query), -1) FROM redshift_log.query AS q
    JOIN pg_stat_activity AS a ON a.pid = q.pid AND q.starttime >= a.backend_start AT TIME ZONE 'UTC'
    WHERE q.pid = pg_backend_pid() AND q.status <> 'running'
$$;

CREATE OR REPLACE FUNCTION pg_catalog.pg_last_unload_count() RETURNS bigint LANGUAGE sql STABLE
    RETURN coalesce(nullif(current_setting('redshift.last_unload_count', true), ''), '0')::bigint;

CREATE OR REPLACE FUNCTION pg_catalog.slice_num() RETURNS integer LANGUAGE sql STABLE RETURN 0;

CREATE OR REPLACE VIEW redshift_log.visible AS
SELECT q.*, coalesce(r.usesysid, 0)::integer AS userid, coalesce(q.endtime, now() AT TIME ZONE 'UTC') AS until
FROM redshift_log.query AS q
LEFT JOIN pg_user AS r ON r.usename = q.username
WHERE q.username = session_user
   OR pg_has_role(session_user, (SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE');

CREATE OR REPLACE VIEW pg_catalog.stl_query AS
SELECT userid, query, label, query AS xid, pid, database, querytxt, starttime, endtime,
       (status <> 'success')::integer AS aborted, 0 AS insert_pristine, 0 AS concurrency_scaling_status
FROM redshift_log.visible WHERE status <> 'running';

CREATE OR REPLACE VIEW pg_catalog.stl_querytext AS
SELECT userid, query AS xid, pid, query, (part - 1)::integer AS sequence,
       substr(querytxt, (part - 1) * 200 + 1, 200) AS text
FROM redshift_log.visible, generate_series(1, greatest(1, ceil(char_length(querytxt) / 200.0))::integer) AS part;

CREATE OR REPLACE VIEW pg_catalog.sys_query_history AS
SELECT userid AS user_id, query AS query_id, label AS query_label, query AS transaction_id, pid AS session_id,
       database AS database_name,
       CASE upper(substring(ltrim(querytxt) FROM '^\w+')) WHEN 'WITH' THEN 'SELECT'
            ELSE coalesce(upper(substring(ltrim(querytxt) FROM '^\w+')), 'OTHER') END AS query_type,
       status, false AS result_cache_hit, starttime AS start_time, endtime AS end_time,
       (extract(epoch FROM until - starttime) * 1000000)::bigint AS elapsed_time, 0::bigint AS queue_time,
       (extract(epoch FROM until - starttime) * 1000000)::bigint AS execution_time, error_message,
       left(querytxt, 4000) AS query_text
FROM redshift_log.visible;

CREATE OR REPLACE VIEW pg_catalog.stv_inflight AS
SELECT userid, 0 AS slice, query, label, query AS xid, pid, starttime, left(querytxt, 100) AS text,
       0 AS suspended, 0 AS insert_pristine, 0 AS concurrency_scaling_status
FROM redshift_log.visible WHERE status = 'running';

CREATE OR REPLACE VIEW pg_catalog.stv_recents AS
SELECT userid, CASE status WHEN 'running' THEN 'Running' ELSE 'Done' END AS status, starttime,
       (extract(epoch FROM until - starttime) * 1000000)::bigint AS duration, username AS user_name, database AS db_name,
       left(querytxt, 600) AS query, CASE status WHEN 'running' THEN pid ELSE -1 END AS pid
FROM redshift_log.visible;

CREATE OR REPLACE VIEW pg_catalog.stv_sessions AS
SELECT backend_start AT TIME ZONE 'UTC' AS starttime, pid AS process, usename AS user_name, datname AS db_name,
       0 AS timeout_sec
FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = current_database();

CREATE OR REPLACE VIEW pg_catalog.stl_unload_log AS
SELECT q.userid, q.query, f.slice, q.pid, f.path, q.starttime AS start_time, q.endtime AS end_time,
       f.line_count, f.transfer_size, u.file_format
FROM redshift_log.visible AS q JOIN redshift_log.unload AS u USING (query) JOIN redshift_log.unload_file AS f USING (query);

CREATE OR REPLACE VIEW pg_catalog.sys_unload_history AS
SELECT q.userid AS user_id, q.query AS query_id, q.query AS transaction_id, q.pid AS session_id,
       q.database AS database_name,
       CASE q.status WHEN 'running' THEN 'running' WHEN 'success' THEN 'completed' ELSE 'aborted' END AS status,
       q.starttime AS start_time, q.endtime AS end_time,
       (extract(epoch FROM q.until - q.starttime) * 1000000)::bigint AS duration, u.file_format,
       u.compression AS compression_type, u.location AS unloaded_location, u.rows AS unloaded_rows,
       u.files AS unloaded_files_count, u.bytes AS unloaded_files_size, q.error_message
FROM redshift_log.visible AS q JOIN redshift_log.unload AS u USING (query);

CREATE OR REPLACE VIEW pg_catalog.sys_unload_detail AS
SELECT q.userid AS user_id, q.query AS query_id, q.query AS transaction_id, q.pid AS session_id, f.path AS file_name,
       q.starttime AS start_time, q.endtime AS end_time, f.line_count, f.transfer_size, u.file_format
FROM redshift_log.visible AS q JOIN redshift_log.unload AS u USING (query) JOIN redshift_log.unload_file AS f USING (query);

-- The catalogue's views
CREATE OR REPLACE VIEW pg_catalog.svv_tables AS
SELECT table_catalog::text, table_schema::text, table_name::text,
       CASE table_type WHEN 'LOCAL TEMPORARY' THEN 'LOCAL TEMPORARY' ELSE table_type END::text AS table_type,
       NULL::text AS remarks
FROM information_schema.tables WHERE table_schema NOT IN ('redshift_log');

CREATE OR REPLACE VIEW pg_catalog.svv_columns AS
SELECT table_catalog::text, table_schema::text, table_name::text, column_name::text, ordinal_position::integer,
       column_default::text, is_nullable::text, data_type::text, character_maximum_length::integer,
       numeric_precision::integer, numeric_precision_radix::integer, numeric_scale::integer, datetime_precision::integer,
       NULL::text AS remarks
FROM information_schema.columns WHERE table_schema NOT IN ('redshift_log');

CREATE OR REPLACE VIEW pg_catalog.svv_all_tables AS
SELECT table_catalog AS database_name, table_schema AS schema_name, table_name, NULL::text AS table_acl,
       CASE table_type WHEN 'BASE TABLE' THEN 'TABLE' ELSE table_type END AS table_type, remarks
FROM pg_catalog.svv_tables;

CREATE OR REPLACE VIEW pg_catalog.pg_table_def AS
SELECT n.nspname::text AS schemaname, c.relname::text AS tablename, a.attname::text AS "column",
       format_type(a.atttypid, a.atttypmod) AS type, 'none'::text AS encoding, false AS distkey, 0 AS sortkey,
       a.attnotnull AS notnull
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p')
  AND n.nspname = ANY (current_schemas(false));  -- as in Redshift, only what the search_path shows

GRANT SELECT ON pg_catalog.stl_query, pg_catalog.stl_querytext, pg_catalog.sys_query_history, pg_catalog.stv_inflight,
    pg_catalog.stv_recents, pg_catalog.stv_sessions, pg_catalog.stl_unload_log, pg_catalog.sys_unload_history,
    pg_catalog.sys_unload_detail, pg_catalog.svv_tables, pg_catalog.svv_columns, pg_catalog.svv_all_tables,
    pg_catalog.pg_table_def TO PUBLIC;
