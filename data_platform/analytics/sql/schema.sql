-- The building blocks: what a service's metrics stand on, replaced day by day. Made here. One partition a local day; what
-- has few rows a day one a month, for a query opens every part of its partitions.
CREATE DATABASE IF NOT EXISTS analytics_blocks{cluster} COMMENT '{layout}';

CREATE TABLE IF NOT EXISTS analytics_blocks.event_days{cluster}
(
    service LowCardinality(String),
    day Date COMMENT 'calendar day in the service''s time zone',
    event_name LowCardinality(String),
    events UInt64,
    users UInt64 COMMENT 'distinct users of the event on the day'
)
ENGINE = {merge_tree} PARTITION BY toYYYYMM(day) ORDER BY (service, day, event_name)
COMMENT 'Events and users by day and event name, duplicates removed';

CREATE TABLE IF NOT EXISTS analytics_blocks.user_days{cluster}
(
    service LowCardinality(String),
    day Date,
    user_id String CODEC(ZSTD(1))
)
ENGINE = {merge_tree} PARTITION BY day ORDER BY (service, user_id)
COMMENT 'Who was active on which day';

-- A gap part belongs to a user, an id part to a session.id. A session is made of the parts of its days.
CREATE TABLE IF NOT EXISTS analytics_blocks.session_parts{cluster}
(
    service LowCardinality(String),
    day Date,
    kind Enum8('id' = 1, 'gap' = 2),
    hash UInt64 COMMENT 'of service and key: finds the parts of other days',
    key String COMMENT 'session.id, or user.id of events without one' CODEC(ZSTD(1)),
    started DateTime64(9, 'UTC'),
    ended DateTime64(9, 'UTC'),
    events UInt64,
    viewed Bool,
    carts Bool COMMENT 'has an add-to-cart, before or after a view',
    first_view DateTime64(9, 'UTC') COMMENT 'where viewed',
    last_cart DateTime64(9, 'UTC') COMMENT 'where carts',
    carted Bool COMMENT 'has an add-to-cart after a view',
    users Array(String) CODEC(ZSTD(1))
)
ENGINE = {merge_tree} PARTITION BY day ORDER BY (service, kind, hash)
COMMENT 'The part of a session that lies in a day';

CREATE TABLE IF NOT EXISTS analytics_blocks.sessions{cluster}
(
    service LowCardinality(String),
    day Date COMMENT 'the day it started',
    events UInt64,
    duration_ns Int64,
    viewed Bool,
    carted Bool
)
ENGINE = {merge_tree} PARTITION BY day ORDER BY service
COMMENT 'One row per session, on the day it started';

CREATE TABLE IF NOT EXISTS analytics_blocks.session_days{cluster}
(
    service LowCardinality(String),
    day Date,
    sessions UInt64,
    users UInt64 COMMENT 'distinct users of the sessions that started on the day'
)
ENGINE = {merge_tree} PARTITION BY toYYYYMM(day) ORDER BY (service, day)
COMMENT 'Sessions and their users by day';

CREATE TABLE IF NOT EXISTS analytics_blocks.day_users{cluster}
(
    service LowCardinality(String),
    day Date,
    users AggregateFunction(groupBitmap, UInt32) COMMENT 'dense ids of user_ids'
)
ENGINE = {merge_tree} PARTITION BY toYYYYMM(day) ORDER BY (service, day)
COMMENT 'The users of a day as a bitmap';

CREATE TABLE IF NOT EXISTS analytics_blocks.record_uids{cluster}
(
    service LowCardinality(String),
    day Date,
    key UInt64 COMMENT 'hash of service and log.record.uid, after the time if the id begins with it' CODEC(NONE),
    rest UInt32 COMMENT 'of the hash, where the time takes its place in the key'
)
ENGINE = {merge_tree} PARTITION BY day ORDER BY key
COMMENT 'Which records a day has, a row each: finds the days that have copies';

-- Which days ever had a key: all that stand in the block, and some that no longer do. Few parts, in the order of the keys,
-- whatever days there are: days that share keys are found by a merge.
CREATE TABLE IF NOT EXISTS analytics_blocks.seen_records{cluster}
(
    key UInt64 CODEC(NONE),
    day Date CODEC(NONE)
)
ENGINE = {merge_tree} ORDER BY key SETTINGS merge_selector_base = 2
COMMENT 'On which days a record may lie; grows, and is made anew of record_uids when half of it is out of date';

CREATE TABLE IF NOT EXISTS analytics_blocks.seen_sessions{cluster}
(
    key UInt64 COMMENT 'the hash of session_parts' CODEC(NONE),
    day Date CODEC(NONE)
)
ENGINE = {merge_tree} ORDER BY key SETTINGS merge_selector_base = 2
COMMENT 'On which days a session by session.id may have a part; grows as seen_records does';

-- Derived: dropping it together with day_users loses nothing, the next refresh assigns the ids anew.
CREATE TABLE IF NOT EXISTS analytics_blocks.user_ids{cluster}
(
    service LowCardinality(String),
    user_id String CODEC(ZSTD(1)),
    id UInt32 COMMENT '1, 2, 3, ... per service, in the order of assignment'
)
ENGINE = {merge_tree} ORDER BY (service, user_id)
COMMENT 'Dense ids of users; assigned under one lock';

-- What the blocks of a service were built from, by UTC day of the events; the newest row counts.
CREATE TABLE IF NOT EXISTS analytics_blocks.built{cluster}
(
    service String,
    ds Date,
    signature UInt64 COMMENT 'of the rows and objects of the partition of analytics.events; 0: nothing there',
    config UInt64 COMMENT 'of the service''s time zone, first date, funnel steps and of the blocks'' SQL',
    revision UInt64
)
ENGINE = {replacing}(revision) ORDER BY (service, ds)
COMMENT 'What the blocks were built from';

-- Which rows of the metrics a refresh may have changed; a metric redoes what is newer than its own table.
CREATE TABLE IF NOT EXISTS analytics_blocks.changes{cluster}
(
    service LowCardinality(String),
    what Enum8('events' = 1, 'sessions' = 2),
    day Date,
    revision UInt64
)
ENGINE = {replacing}(revision) ORDER BY (service, what, day)
COMMENT 'The newest revision in which a day changed';

-- What each summary table was made from.
CREATE TABLE IF NOT EXISTS analytics_blocks.published{cluster}
(
    service String,
    metric LowCardinality(String),
    revision UInt64 COMMENT 'the changes up to this one are in the table',
    definition UInt64 COMMENT 'of the metric''s SQL and the service''s entry in the catalogue',
    made_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {replacing}(revision) ORDER BY (service, metric)
COMMENT 'Which revision of the blocks a summary table shows';
