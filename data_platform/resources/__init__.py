"""Dagster's handles on the clients; they wrap and add nothing."""
