-- The loader's register, beside the rows it describes. {cluster} and engines are put in by schema.py.
-- All tables are append-only: the newest row of a key (by revision) is its state, so a crash never leaves half a change.

CREATE DATABASE IF NOT EXISTS platform{cluster};

-- One row per change of an object version's state in one table partition.
CREATE TABLE IF NOT EXISTS platform.objects{cluster}
(
    domain LowCardinality(String),
    table LowCardinality(String),
    ds Date,
    object String COMMENT 's3://bucket/key@version, the value of _object',
    revision UInt64 COMMENT 'nanoseconds since 1970 of the change; the highest is the state',
    state Enum8('intent' = 1, 'loaded' = 2, 'removed' = 3, 'failed' = 4),
    bucket LowCardinality(String),
    key String,
    version String,
    etag String,
    sequencer String COMMENT 'orders the versions of one key',
    generation UInt32 COMMENT 'the partition generation it was loaded in',
    rows UInt64,
    bytes UInt64,
    plan LowCardinality(String),
    query_id String,
    attempts UInt16,
    code LowCardinality(String) COMMENT 'E001..E008, empty without an error',
    reason String,
    event_at DateTime64(3, 'UTC') COMMENT 'when S3 made the object',
    started_at DateTime64(3, 'UTC'),
    finished_at DateTime64(3, 'UTC'),
    worker LowCardinality(String)
)
ENGINE = {replacing}(revision)
ORDER BY (domain, table, ds, object, state)
COMMENT 'Which object versions a table partition holds, and what became of the others';

-- One row per rebuild of a table partition. `replacing` is written ahead of the swap, `done` behind it.
CREATE TABLE IF NOT EXISTS platform.partitions{cluster}
(
    domain LowCardinality(String),
    table LowCardinality(String),
    ds Date,
    generation UInt32 COMMENT 'raised by every rebuild; part of every deduplication token',
    state Enum8('replacing' = 1, 'done' = 2),
    revision UInt64,
    curated_generation UInt32 COMMENT 'generation of the curated manifest it was built from; 0 without one',
    rows UInt64,
    objects UInt32,
    worker LowCardinality(String),
    changed_at DateTime64(3, 'UTC')
)
ENGINE = {replacing}(revision)
ORDER BY (domain, table, ds, generation, state)
COMMENT 'Generations of table partitions';

-- Leases. The first insert of a name and epoch wins, because its deduplication token drops every other one.
CREATE TABLE IF NOT EXISTS platform.locks{cluster}
(
    name String,
    epoch UInt64 COMMENT 'fencing token: raised by every change of hands',
    owner String,
    kind Enum8('take' = 1, 'renew' = 2, 'free' = 3),
    expires_at DateTime64(3, 'UTC'),
    made_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {merge_tree}
ORDER BY (name, epoch)
TTL toDateTime(made_at) + INTERVAL 7 DAY
SETTINGS {window} = 10000
COMMENT 'Who may change a table partition now';
