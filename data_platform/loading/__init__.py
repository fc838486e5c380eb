"""S3 -> SQS -> ClickHouse, exactly once per object version. No Dagster in here."""
