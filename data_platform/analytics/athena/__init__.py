"""The metrics on Athena: blocks and tables as CTAS over curated Parquet and Glue. run.py is the entrance."""
