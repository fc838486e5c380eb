"""SQS standard queues that stay quick at depth. Here are all patches of `moto.sqs`; FIFO queues remain moto's own.

moto scans every message of a queue several times per call (10 messages a second at 2,000 waiting) and polls while it
waits. Here messages that may be received and messages that become so later are two heaps.
"""

import base64
import binascii
import copy
import heapq
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

from moto.core.utils import unix_time_millis
from moto.sqs import models
from moto.sqs.exceptions import InvalidParameterValue, ReceiptHandleIsInvalid

from data_platform.local.faults import FaultBoard

READY, DELAYED, IN_FLIGHT = "ready", "delayed", "in flight"
MAXIMUM_HIDDEN_MS = 12 * 3600 * 1000
_board = FaultBoard()


@dataclass(eq=False)
class Slot:
    """One message in a queue; a duplicate is a second slot with the same message id."""

    number: int
    key: str  # what receipt handles name: message id and copy
    message: models.Message
    state: str = READY
    available_at: float = 0.0  # milliseconds; of delayed and in-flight messages
    turn: int = 0  # grows with every change of state: heap entries and receipt handles of earlier turns are void


class FastQueue(models.Queue):
    """A queue whose calls cost O(log n)."""

    def __init__(self, name: str, region: str, account_id: str, **kwargs: Any) -> None:
        self._slots: OrderedDict[str, Slot] = OrderedDict()  # the oldest is found at once, also after deletions
        self._ready: list[tuple[int, int, Slot]] = []  # (number, turn, slot)
        self._later: list[tuple[float, int, int, Slot]] = []  # (available_at, number, turn, slot)
        self._counts = {READY: 0, DELAYED: 0, IN_FLIGHT: 0}
        self._numbers = count(1)
        super().__init__(name, region, account_id, **kwargs)

    def _set_attributes(self, attributes: dict[str, Any], now: float | None = None) -> None:
        # moto drops the policy whenever another attribute is set.
        kept = {"Policy": self.policy} if hasattr(self, "_policy_json") else {}
        super()._set_attributes(kept | attributes, now)

    # What moto reads

    @property
    def messages(self) -> list[models.Message]:
        """Messages that can be received now."""
        if self.fifo_queue:
            return super().messages
        with self._messages_lock:
            self._promote()
            return [slot.message for slot in self._slots.values() if slot.state == READY]

    @property
    def approximate_number_of_messages(self) -> int:
        """Waiting to be received."""
        return super().approximate_number_of_messages if self.fifo_queue else self._count(READY)

    @property
    def approximate_number_of_messages_delayed(self) -> int:
        """Not yet to be received for the first time."""
        return super().approximate_number_of_messages_delayed if self.fifo_queue else self._count(DELAYED)

    @property
    def approximate_number_of_messages_not_visible(self) -> int:
        """Received and neither deleted nor back."""
        return super().approximate_number_of_messages_not_visible if self.fifo_queue else self._count(IN_FLIGHT)

    # What moto calls

    def add_message(self, message: models.Message) -> None:
        """Append a message; a message redriven from another queue keeps its id, counts and sent time."""
        if self.fifo_queue:
            super().add_message(message)
            return
        now = unix_time_millis()
        held = _board.strike("sqs.reorder", queue=self.name, body=message.body)
        if held is not None:
            message.delayed_until = max(message.delayed_until, now + float(held.args.get("seconds", 1)) * 1000)
        self._append(message, message.delayed_until)
        again = _board.strike("sqs.duplicate", queue=self.name, body=message.body)
        if again is not None:
            later = now + float(again.args.get("after", 0)) * 1000
            for _ in range(int(again.args.get("copies", 1))):
                self._append(copy.copy(message), max(message.delayed_until, later))

    def take(self, limit: int, visibility_s: int, wait_s: float) -> list[models.Message]:
        """Receive up to `limit` messages, waiting up to `wait_s` for the first; each is a copy with its own handle."""
        deadline = unix_time_millis() + wait_s * 1000
        while True:
            dead: list[models.Message] = []
            with self._messages_lock:
                taken = self._take_ready(limit, visibility_s, dead)
                if not taken and not dead:
                    now = unix_time_millis()
                    if now >= deadline:
                        return []
                    next_due = min(self._later[0][0], deadline) if self._later else deadline
                    self._messages_lock.wait(max(next_due - now, 1) / 1000)
            for message in dead:  # outside the lock: two queues may be each other's dead-letter queue
                cast("FastQueue", self.dead_letter_queue).add_message(message)
            if taken:
                return taken

    def delete_message(self, receipt_handle: str) -> None:
        """Delete by the newest handle; an older one is accepted and changes nothing, as AWS documents."""
        if self.fifo_queue:
            super().delete_message(receipt_handle)
            return
        key, turn = self._read_handle(receipt_handle)
        with self._messages_lock:
            slot = self._slots.get(key)
            if slot is not None and slot.message.approximate_receive_count == turn:
                self._remove(slot)

    def change_visibility(self, receipt_handle: str, seconds: int) -> None:
        """Hide an in-flight message for `seconds` from now. Raises InvalidParameterValue when it is not in flight."""
        key, turn = self._read_handle(receipt_handle)
        with self._messages_lock:
            self._promote()
            slot = self._slots.get(key)
            if slot is None or slot.state != IN_FLIGHT or slot.message.approximate_receive_count != turn:
                raise InvalidParameterValue(
                    f"Value {receipt_handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist "
                    "or is not available for visibility timeout change."
                )
            until = unix_time_millis() + seconds * 1000
            if until - cast("int", slot.message.sent_timestamp) > MAXIMUM_HIDDEN_MS:
                raise InvalidParameterValue(
                    f"Value {seconds} for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for "
                    "the message is beyond the limit [43200 seconds]"
                )
            self._hide(slot, IN_FLIGHT, until)

    def purge(self) -> None:
        """Drop every message."""
        with self._messages_lock:
            self._slots.clear()
            self._ready.clear()
            self._later.clear()
            self._counts = {READY: 0, DELAYED: 0, IN_FLIGHT: 0}

    # Inside the lock

    def _append(self, message: models.Message, available_at: float) -> None:
        with self._messages_lock:
            number = next(self._numbers)
            slot = Slot(number, f"{message.id}/{number}", message)
            self._slots[slot.key] = slot
            self._counts[READY] += 1
            if available_at > unix_time_millis():
                self._hide(slot, DELAYED, available_at)
            else:
                heapq.heappush(self._ready, (number, slot.turn, slot))
            self._messages_lock.notify_all()

    def _hide(self, slot: Slot, state: str, until: float) -> None:
        self._move(slot, state)
        slot.available_at = until
        heapq.heappush(self._later, (until, slot.number, slot.turn, slot))
        self._messages_lock.notify_all()  # who waits may have to wake earlier

    def _move(self, slot: Slot, state: str) -> None:
        self._counts[slot.state] -= 1
        self._counts[state] += 1
        slot.state = state
        slot.turn += 1

    def _remove(self, slot: Slot) -> None:
        self._counts[slot.state] -= 1
        slot.turn += 1
        del self._slots[slot.key]

    def _promote(self) -> None:
        """Make receivable what is due, and drop what is past the retention period."""
        now = unix_time_millis()
        while self._later and self._later[0][0] <= now:
            _, number, turn, slot = heapq.heappop(self._later)
            if turn == slot.turn:
                self._move(slot, READY)
                heapq.heappush(self._ready, (number, slot.turn, slot))
        oldest = now - self.message_retention_period * 1000  # type: ignore[attr-defined]
        while self._slots:
            slot = next(iter(self._slots.values()))
            if cast("int", slot.message.sent_timestamp) > oldest:
                break
            self._remove(slot)

    def _take_ready(self, limit: int, visibility_s: int, dead: list[models.Message]) -> list[models.Message]:
        self._promote()
        taken: list[tuple[Slot, models.Message]] = []
        maximum = None
        if self.dead_letter_queue is not None and self.redrive_policy:
            maximum = int(self.redrive_policy["maxReceiveCount"])
        while self._ready and len(taken) < limit:
            _, turn, slot = heapq.heappop(self._ready)
            if turn != slot.turn:
                continue
            message = slot.message
            if maximum is not None and message.approximate_receive_count >= maximum:
                self._remove(slot)
                dead.append(message)
                continue
            message.mark_received()
            handle = self._write_handle(slot)
            received = copy.copy(message)
            received.receipt_handle = message.receipt_handle = handle
            taken.append((slot, received))
        until = unix_time_millis() + visibility_s * 1000
        for slot, _ in taken:
            self._hide(slot, IN_FLIGHT, until)
        return [message for _, message in taken]

    def _count(self, state: str) -> int:
        with self._messages_lock:
            self._promote()
            return self._counts[state]

    # Receipt handles: opaque to clients, here the queue, the message's key and the receive they belong to.

    def _write_handle(self, slot: Slot) -> str:
        text = f"{self.queue_arn} {slot.key} {slot.message.approximate_receive_count} {random.random()}"  # noqa: S311
        return base64.urlsafe_b64encode(text.encode()).decode()

    def _read_handle(self, handle: str) -> tuple[str, int]:
        try:
            arn, key, turn, _ = base64.urlsafe_b64decode(handle.encode()).decode().split(" ")
        except (binascii.Error, UnicodeError, ValueError):
            raise ReceiptHandleIsInvalid from None
        if arn != self.queue_arn:
            raise ReceiptHandleIsInvalid
        return key, int(turn)


def _receive(of_fifo: Callable[..., list[models.Message]]) -> Callable[..., list[models.Message]]:
    def receive_message(
        self: models.SQSBackend,
        queue_name: str,
        count: int,
        wait_seconds_timeout: int,
        visibility_timeout: int,
        message_attribute_names: list[str] | None = None,
    ) -> list[models.Message]:
        queue = self.get_queue(queue_name)
        if not isinstance(queue, FastQueue) or queue.fifo_queue:
            return of_fifo(self, queue_name, count, wait_seconds_timeout, visibility_timeout, message_attribute_names)
        messages = queue.take(count, int(visibility_timeout or 0), wait_seconds_timeout)
        for message in messages:
            models._filter_message_attributes(message, message_attribute_names or [])  # pyright: ignore[reportPrivateUsage]
        return messages

    return receive_message


def _change_visibility(of_fifo: Callable[..., None]) -> Callable[..., None]:
    def change_message_visibility(
        self: models.SQSBackend, queue_name: str, receipt_handle: str, visibility_timeout: int
    ) -> None:
        queue = self.get_queue(queue_name)
        if isinstance(queue, FastQueue) and not queue.fifo_queue:
            queue.change_visibility(receipt_handle, int(visibility_timeout))
        else:
            of_fifo(self, queue_name, receipt_handle, visibility_timeout)

    return change_message_visibility


def _purge(of_fifo: Callable[..., None]) -> Callable[..., None]:
    def purge_queue(self: models.SQSBackend, queue_name: str) -> None:
        of_fifo(self, queue_name)
        queue = self.get_queue(queue_name)
        if isinstance(queue, FastQueue):
            queue.purge()

    return purge_queue


def install(board: FaultBoard) -> None:
    """Patch moto's SQS; once per process, before its first queue."""
    global _board  # noqa: PLW0603 - queues are made by moto's own code, which cannot pass it
    _board = board
    # Every call of moto's queue scans all its messages, several times; waiting is a scan a second.
    models.Queue = FastQueue
    models.SQSBackend.receive_message = _receive(models.SQSBackend.receive_message)
    models.SQSBackend.change_message_visibility = _change_visibility(models.SQSBackend.change_message_visibility)
    models.SQSBackend.purge_queue = _purge(models.SQSBackend.purge_queue)
