"""The embedded Redshift."""
