"""Counts the records of a CSV text byte by byte, with other means than records.py cuts them: what conservation is
checked against. What belongs here: the count. What does not: fields, rules, any import from records.py.
"""

import re

_SPECIAL = re.compile(rb'[",\r\n]')
_NEVER = -2  # no position of a block


class RecordCounter:
    """Feed it the text in pieces; `total` holds the physical records so far, the header included."""

    def __init__(self) -> None:
        self._ended = 0
        self._open = False  # bytes since the last record's end
        self._quoted = False
        self._spoiled = False  # a quote out of place: quotes mean nothing until the line ends
        self._at_field = True
        self._after_quote = False
        self._after_return = False

    @property
    def total(self) -> int:
        """Records so far; the last one counts although nothing has ended it."""
        return self._ended + self._open

    def feed(self, piece: bytes) -> None:
        """Count on."""
        if not piece:
            return
        if self._after_return and piece[0] == 0x0A:
            piece = piece[1:]  # the other half of a CRLF: its record is counted
            self._after_return = False
            if not piece:
                return
        if self._quoted or b'"' in piece:
            self._walk(piece)
        else:
            ends = piece.count(b"\n") + piece.count(b"\r") - piece.count(b"\r\n")
            self._spoiled = (self._spoiled or (self._after_quote and piece[0] not in b",\r\n")) and not ends
            self._ended += ends
            self._open = piece[-1] not in b"\r\n"
            self._at_field = piece[-1] in b",\r\n"
            self._after_quote = False
        self._after_return = piece[-1] == 0x0D and not self._quoted

    def _walk(self, piece: bytes) -> None:
        field = 0 if self._at_field else _NEVER
        closed = -1 if self._after_quote else _NEVER
        record = 0
        ended_here = False
        for match in _SPECIAL.finditer(piece):
            at = match.start()
            byte = piece[at]
            if self._quoted:
                if byte == 0x22:
                    self._quoted, closed = False, at
                continue
            if closed != _NEVER and at > closed + 1:
                self._spoiled = True
            if byte == 0x22:
                if not self._spoiled and (at == field or (closed != _NEVER and at == closed + 1)):
                    self._quoted = True
                closed = _NEVER
                continue
            closed = _NEVER
            if byte == 0x2C:
                field = at + 1
                continue
            field = record = at + 1
            self._spoiled = False
            ended_here = True
            if byte == 0x0A and at and piece[at - 1] == 0x0D:
                continue  # CRLF: counted at the CR, which cannot have been a quoted one
            self._ended += 1
        self._open = record < len(piece) if ended_here else True
        self._at_field = field == len(piece)
        self._after_quote = closed == len(piece) - 1
        if closed != _NEVER and closed < len(piece) - 1:
            self._spoiled = True
        if self._quoted:
            self._at_field = self._after_quote = False
