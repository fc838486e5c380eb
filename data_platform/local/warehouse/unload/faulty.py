"""The fault switches of UNLOAD: which strike this statement, and when each takes effect.

A switch that ends the statement after some files takes effect at the latest before the manifest, so that one that has
struck has always done something.
"""

import time
from typing import Any

from data_platform.local.faults import FaultRule
from data_platform.local.warehouse.unload.contract import (
    ConnectionDroppedError,
    Source,
    UnloadEnvironment,
    UnloadStatement,
    WarehouseError,
)
from data_platform.local.warehouse.unload.manifest import lie
from data_platform.local.warehouse.unload.objects import redshift_detail, s3_failure

CANCEL_POLL_S = 0.05


class StoppedError(Exception):
    """The statement ends here with `error`; what is written stays, what is open is forgotten."""

    def __init__(self, error: WarehouseError) -> None:
        super().__init__(error.message)
        self.error = error


class Switches:
    """The faults armed for one UNLOAD."""

    def __init__(self, statement: UnloadStatement, source: Source, environment: UnloadEnvironment) -> None:
        self._statement = statement
        self._source = source
        self._board = environment.faults
        self._finished = 0
        self._die: FaultRule | None = None
        self._timeout: FaultRule | None = None
        self._s3_error: FaultRule | None = None
        self._slow: FaultRule | None = None
        self._s3_error_done = False

    def refuse_role(self) -> None:
        """Raise when the role is to be refused."""
        if self._strike("unload.refuse_role"):
            role = self._statement.iam_role
            message = f"User is not authorized to assume IAM Role {role}"
            raise WarehouseError("XX000", message, detail=redshift_detail(message, f"IAM Role={role}"))

    def begin(self) -> None:
        """The statement is about to run."""
        self._die = self._strike("unload.die_after_files")
        self._timeout = self._strike("unload.timeout")
        self._s3_error = self._strike("unload.s3_error")
        self._slow = self._strike("unload.slow")
        self._end_if(0)

    def opening(self, slice_number: int) -> None:
        """A slice opens a file; raises the S3 failure that is armed for it."""
        rule = self._s3_error
        if rule is not None and slice_number == int(rule.args.get("slice", 0)):
            raise self._s3_failure()

    def finished(self) -> None:
        """A file is complete. Raises StoppedError when it was the last."""
        self._finished += 1
        if self._slow is not None:
            self._sleep(float(self._slow.args.get("seconds", 1)))
        self._end_if(self._finished)

    def before_manifest(self) -> None:
        """All files are complete. Raises what was to strike after more files than there are."""
        self._end_if(None)
        if self._s3_error is not None and not self._s3_error_done:
            raise StoppedError(self._s3_failure())

    def told_manifest(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        """The manifest that is written: the true one, a lie, or none."""
        if self._strike("unload.no_manifest"):
            return None
        if rule := self._strike("unload.lying_manifest"):
            return lie(manifest, str(rule.args.get("what", "missing_entry")))
        return manifest

    def told_count(self, rows: int) -> int:
        """The count the session reports."""
        rule = self._strike("unload.wrong_count")
        return rows + int(rule.args.get("by", 1)) if rule else rows

    def _strike(self, kind: str) -> FaultRule | None:
        return self._board.strike(kind, prefix=self._statement.prefix, query=self._statement.query)

    def _end_if(self, files: int | None) -> None:
        """End the statement when a rule wants it after this many files; None is the end of the files."""
        if self._die is not None and files in {int(self._die.args.get("files", 0)), None}:
            if self._die.args.get("drop"):
                raise StoppedError(ConnectionDroppedError("57P01", "the connection is dropped"))
            raise StoppedError(WarehouseError("XX000", f"slice process died after {self._finished} files"))
        if self._timeout is not None and files in {int(self._timeout.args.get("files", 0)), None}:
            raise StoppedError(WarehouseError("57014", "canceling statement due to statement timeout"))

    def _s3_failure(self) -> WarehouseError:
        self._s3_error_done = True
        return s3_failure("InternalError", "We encountered an internal error. Please try again.", 500, "Writing")

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            stop_if_cancelled(self._source)
            time.sleep(min(CANCEL_POLL_S, left))


def stop_if_cancelled(source: Source) -> None:
    """Raise StoppedError (57014) once the client has cancelled."""
    if source.cancelled():
        raise StoppedError(WarehouseError("57014", "Query cancelled on user's request"))
