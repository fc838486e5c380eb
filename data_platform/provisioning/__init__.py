"""Makes everything the platform needs on AWS, Kafka, PostgreSQL and ClickHouse; idempotent."""
