"""The CSV batch: a file of user statistics on S3, validated as text, applied to PostgreSQL in chunks, every row told.

`apply_file` is the whole of it; the other modules are its steps.
"""
