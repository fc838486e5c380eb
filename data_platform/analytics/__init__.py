"""Per-service product metrics: building blocks and metrics as SQL files. No Dagster in here."""
