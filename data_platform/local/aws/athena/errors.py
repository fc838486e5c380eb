"""How a query fails, in Athena's words: the code at the head of the reason, and whose fault it is."""

SYSTEM, USER = 1, 2  # Athena's categories


class QueryFailedError(Exception):
    """A query ends FAILED with this reason, e.g. `TABLE_NOT_FOUND: line 1:1: ...`."""

    def __init__(self, code: str, message: str, *, category: int = USER, retryable: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.category = category
        self.retryable = retryable


class QueryCancelled(Exception):  # noqa: N818 - a query that is stopped has not failed
    """The query was stopped."""


class RequestError(Exception):
    """A call is refused: the error's type as the SDK sees it, and the message."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
