"""The code location. Everything is assembled in build.py."""

import gc

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, jobs, schedules and sensors of the catalogue."""
    # What is there by now, Dagster mostly, stays for the life of the process. Each full collection would walk over its
    # half a million objects: a third of the time that loading took, in every run.
    gc.freeze()
    from data_platform.build import build_defs

    return build_defs()
