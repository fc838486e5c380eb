"""The code location. Everything is assembled in build.py."""

import dagster as dg

from data_platform.build import build_defs


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, jobs, schedules and sensors of the catalogue."""
    return build_defs()
