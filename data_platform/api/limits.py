"""What is refused before a call is looked at: bodies that are too large, callers that are too fast."""

import math
import time
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_platform.api.problems import problem

MAX_BODY_BYTES = 512 * 1024  # a statement of 100,000 characters, escaped

DRAINED_BYTES = 8 * 1024 * 1024


class _TooLargeError(Exception):
    """The body went past the limit while it was read."""


async def _drain(receive: Receive) -> None:
    """Read and drop what a client is still sending, up to a bound: answered earlier, it meets a broken pipe."""
    dropped = 0
    while dropped < DRAINED_BYTES:
        message = await receive()
        dropped += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


class BodyLimit:
    """ASGI middleware: 413 for a body above the limit, whether its length was told or not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        too_large = problem(413, f"the body may have {MAX_BODY_BYTES} bytes", {"Connection": "close"})
        if told.isdigit() and int(told) > MAX_BODY_BYTES:
            await _drain(receive)
            await too_large(scope, receive, send)
            return
        read = 0
        started = False

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise _TooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except _TooLargeError:
            if not started:
                await _drain(receive)
                await too_large(scope, receive, send)


@dataclass
class Bucket:
    """A token bucket: `rate` calls a second on average, `burst` at once."""

    rate: float
    burst: int
    _level: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._level = float(self.burst)
        self._at = time.monotonic()

    def take(self) -> int:
        """0 when the call may go on; otherwise the whole seconds after which it may."""
        now = time.monotonic()
        self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now
        if self._level >= 1:
            self._level -= 1
            return 0
        return max(1, math.ceil((1 - self._level) / self.rate))
