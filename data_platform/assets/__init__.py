"""Thin Dagster assets made from the catalogue; the work is done by the packages they call."""
