CREATE DATABASE IF NOT EXISTS `analytics`;

CREATE DATABASE IF NOT EXISTS `customer`;

CREATE DATABASE IF NOT EXISTS `market`;

CREATE DATABASE IF NOT EXISTS `product`;

CREATE TABLE IF NOT EXISTS `analytics`.`events`
(
    `service_name` LowCardinality(String) COMMENT 'Resource attribute service.name.',
    `event_time` DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When it happened, nanoseconds, UTC.',
    `event_date` Date COMMENT 'UTC day of event_time; the partition\'s day.',
    `event_name` LowCardinality(String) COMMENT 'The record\'s event name, or its event.name.',
    `user_id` Nullable(String) CODEC(ZSTD(1)) COMMENT 'user.id, or enduser.id; null: not signed in.',
    `session_id` Nullable(String) CODEC(ZSTD(1)) COMMENT 'session.id; null: none was sent.',
    `attributes` Map(String, String) CODEC(ZSTD(1)) COMMENT 'All attributes of the record, values as text.',
    `trace_id` Nullable(String) CODEC(ZSTD(1)) COMMENT 'Trace id, 32 hexadecimal digits.',
    `record_uid` Nullable(String) CODEC(ZSTD(1)) COMMENT 'log.record.uid; only the first of a service counts.',
    `source_object` LowCardinality(String) COMMENT 'S3 key of the log object it came from.',
    `source_position` UInt64 COMMENT 'Position of the record in its object, from 0.',
    `_ds` Date COMMENT 'Day of the partition, from the object\'s key.',
    `_object` LowCardinality(String) COMMENT 'The object the row came from: s3://<bucket>/<key>@<version>.'
)
ENGINE = MergeTree
PARTITION BY `_ds`
ORDER BY (`service_name`, `event_time`, `source_object`, `source_position`)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'One event of a product service, from its OpenTelemetry logs; the day is the event\'s UTC day.';

CREATE TABLE `analytics`.`staging` AS `analytics`.`events`;

CREATE TABLE IF NOT EXISTS `customer`.`airlines_snapshots`
(
    `carrier` String CODEC(ZSTD(1)) COMMENT 'Two-letter code.',
    `name` String CODEC(ZSTD(1)) COMMENT 'Full name.',
    `_ds` Date COMMENT 'Day of the partition, from the object\'s key.',
    `_object` LowCardinality(String) COMMENT 'The object the row came from: s3://<bucket>/<key>@<version>.'
)
ENGINE = MergeTree
PARTITION BY `_ds`
ORDER BY (`carrier`)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'One airline.';

CREATE OR REPLACE VIEW `customer`.`airlines` AS
SELECT `carrier`, `name`, `_ds`, `_object`
FROM `customer`.`airlines_snapshots`
WHERE `_ds` = (SELECT max(`_ds`) FROM `customer`.`airlines_snapshots`)
COMMENT 'One airline.';

CREATE TABLE `customer`.`staging` AS `customer`.`airlines_snapshots`;

CREATE TABLE IF NOT EXISTS `customer`.`airports_snapshots`
(
    `faa` String CODEC(ZSTD(1)) COMMENT 'Code of the aviation authority.',
    `name` String CODEC(ZSTD(1)) COMMENT 'Usual name.',
    `lat` Float64 COMMENT 'Latitude, degrees north.',
    `lon` Float64 COMMENT 'Longitude, degrees east.',
    `alt` Int32 COMMENT 'Altitude, feet.',
    `tz` Int8 COMMENT 'Hours from UTC, without daylight saving.',
    `dst` LowCardinality(String) COMMENT 'Daylight saving: A as in the US, N none, U unknown.',
    `tzone` LowCardinality(Nullable(String)) COMMENT 'IANA time zone.',
    `_ds` Date COMMENT 'Day of the partition, from the object\'s key.',
    `_object` LowCardinality(String) COMMENT 'The object the row came from: s3://<bucket>/<key>@<version>.'
)
ENGINE = MergeTree
PARTITION BY `_ds`
ORDER BY (`faa`)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'One airport.';

CREATE OR REPLACE VIEW `customer`.`airports` AS
SELECT `faa`, `name`, `lat`, `lon`, `alt`, `tz`, `dst`, `tzone`, `_ds`, `_object`
FROM `customer`.`airports_snapshots`
WHERE `_ds` = (SELECT max(`_ds`) FROM `customer`.`airports_snapshots`)
COMMENT 'One airport.';

CREATE TABLE `customer`.`staging` AS `customer`.`airports_snapshots`;

CREATE TABLE IF NOT EXISTS `market`.`flights`
(
    `flight_date` Date COMMENT 'Local day of the scheduled departure; the partition\'s day.',
    `year` UInt16 COMMENT 'Year of the scheduled departure.',
    `month` UInt8 COMMENT 'Month of the scheduled departure, 1-12.',
    `day` UInt8 COMMENT 'Day of the month of the scheduled departure, 1-31.',
    `dep_time` Nullable(UInt16) COMMENT 'Local departure time as HHMM, 1-2400; null: cancelled.',
    `sched_dep_time` UInt16 COMMENT 'Scheduled local departure time as HHMM.',
    `dep_delay` Nullable(Int16) COMMENT 'Departure delay in minutes, negative when early.',
    `arr_time` Nullable(UInt16) COMMENT 'Local arrival time as HHMM, 1-2400.',
    `sched_arr_time` UInt16 COMMENT 'Scheduled local arrival time as HHMM.',
    `arr_delay` Nullable(Int16) COMMENT 'Arrival delay in minutes, negative when early.',
    `carrier` LowCardinality(String) COMMENT 'Two-letter code of the airline, see customer/airlines.',
    `flight` UInt16 COMMENT 'Flight number.',
    `tailnum` LowCardinality(Nullable(String)) COMMENT 'Tail number, see product/planes.',
    `origin` LowCardinality(String) COMMENT 'Airport of departure: EWR, JFK or LGA.',
    `dest` LowCardinality(String) COMMENT 'Airport of arrival, see customer/airports.',
    `air_time` Nullable(UInt16) COMMENT 'Minutes in the air.',
    `distance` UInt16 COMMENT 'Miles between the airports.',
    `hour` UInt8 COMMENT 'Hour of the scheduled departure, local.',
    `minute` UInt8 COMMENT 'Minute of the scheduled departure.',
    `time_hour` DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Scheduled hour of departure, UTC; joins with market/weather.',
    `_ds` Date COMMENT 'Day of the partition, from the object\'s key.',
    `_object` LowCardinality(String) COMMENT 'The object the row came from: s3://<bucket>/<key>@<version>.'
)
ENGINE = MergeTree
PARTITION BY `_ds`
ORDER BY (`origin`, `carrier`, `flight`, `sched_dep_time`)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'One flight that left a New York airport (EWR, JFK, LGA) in 2013.';

CREATE TABLE `market`.`staging` AS `market`.`flights`;

CREATE TABLE IF NOT EXISTS `market`.`weather`
(
    `observation_date` Date COMMENT 'Local day of the observation; the partition\'s day.',
    `origin` LowCardinality(String) COMMENT 'Airport: EWR, JFK or LGA.',
    `year` UInt16 COMMENT 'Year of the observation.',
    `month` UInt8 COMMENT 'Month of the observation, 1-12.',
    `day` UInt8 COMMENT 'Day of the month of the observation, 1-31.',
    `hour` UInt8 COMMENT 'Local hour of the observation, 0-23.',
    `temp` Nullable(Float64) COMMENT 'Temperature, degrees Fahrenheit.',
    `dewp` Nullable(Float64) COMMENT 'Dew point, degrees Fahrenheit.',
    `humid` Nullable(Float64) COMMENT 'Relative humidity, percent.',
    `wind_dir` Nullable(UInt16) COMMENT 'Wind direction, degrees.',
    `wind_speed` Nullable(Float64) COMMENT 'Wind speed, miles per hour.',
    `wind_gust` Nullable(Float64) COMMENT 'Speed of gusts, miles per hour; null: none.',
    `precip` Float64 COMMENT 'Precipitation of the hour, inches.',
    `pressure` Nullable(Float64) COMMENT 'Sea level pressure, millibars.',
    `visib` Float64 COMMENT 'Visibility, miles.',
    `time_hour` DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Hour of the observation, UTC; joins with market/flights.',
    `_ds` Date COMMENT 'Day of the partition, from the object\'s key.',
    `_object` LowCardinality(String) COMMENT 'The object the row came from: s3://<bucket>/<key>@<version>.'
)
ENGINE = MergeTree
PARTITION BY `_ds`
ORDER BY (`origin`, `time_hour`)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'One hour of weather at a New York airport (EWR, JFK, LGA) in 2013.';

CREATE TABLE `market`.`staging` AS `market`.`weather`;

CREATE TABLE IF NOT EXISTS `product`.`planes_snapshots`
(
    `tailnum` String CODEC(ZSTD(1)) COMMENT 'Tail number.',
    `year` Nullable(UInt16) COMMENT 'Year of manufacture.',
    `type` LowCardinality(String) COMMENT 'Kind of plane, e.g. Fixed wing multi engine.',
    `manufacturer` LowCardinality(String) COMMENT 'Manufacturer.',
    `model` LowCardinality(String) COMMENT 'Model.',
    `engines` UInt8 COMMENT 'Number of engines.',
    `seats` UInt16 COMMENT 'Number of seats.',
    `speed` Nullable(UInt16) COMMENT 'Mean cruising speed, miles per hour.',
    `engine` LowCardinality(String) COMMENT 'Kind of engine, e.g. Turbo-fan.',
    `_ds` Date COMMENT 'Day of the partition, from the object\'s key.',
    `_object` LowCardinality(String) COMMENT 'The object the row came from: s3://<bucket>/<key>@<version>.'
)
ENGINE = MergeTree
PARTITION BY `_ds`
ORDER BY (`tailnum`)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'One plane known to the aviation authority by its tail number.';

CREATE OR REPLACE VIEW `product`.`planes` AS
SELECT `tailnum`, `year`, `type`, `manufacturer`, `model`, `engines`, `seats`, `speed`, `engine`, `_ds`, `_object`
FROM `product`.`planes_snapshots`
WHERE `_ds` = (SELECT max(`_ds`) FROM `product`.`planes_snapshots`)
COMMENT 'One plane known to the aviation authority by its tail number.';

CREATE TABLE `product`.`staging` AS `product`.`planes_snapshots`;
