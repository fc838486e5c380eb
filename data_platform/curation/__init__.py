"""Raw -> curated Parquet, with the partition manifest as commit marker. No Dagster in here."""
