"""The data platform: a typed catalogue says what moves, small packages move it, Dagster shows it."""

__version__ = "0.1.0"
