"""A client whose process is killed, or stands still, at a statement: what no kill from outside can aim at."""

import threading
import time
from typing import Any

from clickhouse_connect.driver.exceptions import OperationalError


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, not even its `finally` blocks reach the server."""


class Mortal:
    """A client whose process is killed at a statement, before it is sent or after it was executed.

    The statement: the `at`-th, or the first that contains `text`. With `pause` the process only stands still so long.
    """

    def __init__(self, client: Any, at: int = 0, *, text: str = "", after: bool = False, pause: float = 0.0) -> None:
        self._client, self._at, self._text, self._after, self._pause = client, at, text, after, pause
        self._count = 0
        self.dead = False
        self.paused = threading.Event()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if name not in {"command", "query", "raw_insert", "insert"}:
            return attribute

        def call(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread().name == "lease":  # it dies, or stands still, with its process
                if self.dead or self.paused.is_set():
                    raise OperationalError("the process is gone")
                return attribute(*arguments, **options)
            if self.dead:
                raise Killed
            self._count += 1
            if not self._struck(arguments):
                return attribute(*arguments, **options)
            if self._pause:
                self.paused.set()
                time.sleep(self._pause)
                return attribute(*arguments, **options)
            if self._after:
                attribute(*arguments, **options)
            self.dead = True
            raise Killed

        return call

    def _struck(self, arguments: tuple[Any, ...]) -> bool:
        if self._text:
            return self._text in str(arguments[0])
        return self._count == self._at
