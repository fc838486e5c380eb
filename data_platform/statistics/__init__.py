"""CSV batches into PostgreSQL: validation and upsert. No Dagster in here."""
