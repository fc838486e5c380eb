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
    attempts UInt16 COMMENT 'failures that counted',
    starts UInt16 COMMENT 'intents without an end: what crashes left behind',
    code LowCardinality(String) COMMENT 'E001..E008, empty without an error',
    reason String,
    event_at DateTime64(3, 'UTC') COMMENT 'when S3 made the object',
    started_at DateTime64(3, 'UTC'),
    finished_at DateTime64(3, 'UTC'),
    worker LowCardinality(String)
)
ENGINE = {replacing}(revision)
ORDER BY (domain, table, ds, object, state, generation)
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

-- Leases. The first insert of a name and epoch wins, because its deduplication token drops every other one. The newest
-- epoch of a name is kept for ever: an epoch that came back would meet its own old token and could never be taken.
CREATE TABLE IF NOT EXISTS platform.locks{cluster}
(
    name String,
    epoch UInt64 COMMENT 'fencing token: raised by every change of hands',
    owner String,
    kind Enum8('take' = 1, 'renew' = 2, 'free' = 3),
    expires_at DateTime64(3, 'UTC'),
    made_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {replacing}(epoch)
ORDER BY (name, kind)
SETTINGS {window} = 10000
COMMENT 'Who may change a table partition now';

-- Domains that are paused by a person or parked by a configuration error; the newest row of a domain counts.
CREATE TABLE IF NOT EXISTS platform.domains{cluster}
(
    domain LowCardinality(String),
    state Enum8('running' = 1, 'paused' = 2, 'parked' = 3),
    revision UInt64,
    reason String,
    worker String,
    changed_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {replacing}(revision)
ORDER BY domain
COMMENT 'Which domains the loader may receive for';
