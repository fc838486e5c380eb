"""What all calls of one API process share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from data_platform.api.callers import Callers
from data_platform.api.statements import Statements
from data_platform.api.submissions import Submissions
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Engine


@dataclass
class ApiState:
    """Belongs to one event loop; `ending` is set when the process is told to end.

    `ledger` is for transactions, `ask` for single statements.
    """

    settings: Settings
    ledger: "Engine"
    ask: Statements
    s3: "S3Client"
    callers: Callers
    submissions: Submissions
    wake: Callable[[], None]
    ending: bool = False
    streams: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def bucket(self) -> str:
        """The unload bucket."""
        return self.settings.unload_bucket

    def not_ready(self) -> str | None:
        """Why calls cannot be handled now; None when they can."""
        try:
            self.ask(lambda connection: connection.execute(text("SELECT 1 FROM api_tokens LIMIT 1")))
        except SQLAlchemyError as error:
            return f"the ledger cannot be read: {type(error).__name__}"
        return None
