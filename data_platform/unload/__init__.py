"""Redshift UNLOAD: statement, guard, manifest, proof, request lifecycle. No Dagster in here."""
