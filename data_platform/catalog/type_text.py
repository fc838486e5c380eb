"""The text of a ClickHouse type <-> ColumnType. What the types mean to Arrow and Redshift stands in types.py."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal

Family = Literal[
    "integer", "float", "decimal", "text", "fixed_text", "bool", "date", "timestamp", "uuid", "map", "array"
]
INTEGER_BITS = {f"{sign}Int{bits}": bits for sign in ("", "U") for bits in (8, 16, 32, 64)}
FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(INTEGER_BITS, "integer"),
    "Float32": "float",
    "Float64": "float",
    "Decimal": "decimal",
    "String": "text",
    "FixedString": "fixed_text",
    "Bool": "bool",
    "Date": "date",
    "Date32": "date",
    "DateTime": "timestamp",
    "DateTime64": "timestamp",
    "UUID": "uuid",
    "Map": "map",
    "Array": "array",
}
# Types that are nothing without arguments, with an example of how they are written.
_EXAMPLES = {
    "Nullable": "Nullable(Int32)",
    "LowCardinality": "LowCardinality(String)",
    "Decimal": "Decimal(18, 2)",
    "DateTime64": "DateTime64(6)",
    "FixedString": "FixedString(16)",
    "Map": "Map(String, String)",
    "Array": "Array(String)",
}
_KNOWN = tuple(dict.fromkeys((*FAMILIES, *_EXAMPLES)))


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A parsed ClickHouse type. `sql` is its canonical text, spelt as system.columns spells it.

    `number` is the length of FixedString, the precision of Decimal or the fraction digits of DateTime64; `scale` is
    Decimal's; `inner` holds the element of an Array, the key and value of a Map. A timestamp's zone is always UTC.
    """

    name: str
    number: int | None = None
    scale: int | None = None
    inner: tuple["ColumnType", ...] = ()
    nullable: bool = False
    low_cardinality: bool = False

    @property
    def family(self) -> Family:
        """What kind of value it holds, whatever its width."""
        return FAMILIES[self.name]

    @property
    def sql(self) -> str:
        """Canonical text, e.g. `LowCardinality(Nullable(String))`, `DateTime64(9, 'UTC')`, `Decimal(10, 2)`."""
        arguments = self._arguments()
        text = f"{self.name}({arguments})" if arguments else self.name
        if self.nullable:
            text = f"Nullable({text})"
        return f"LowCardinality({text})" if self.low_cardinality else text

    def _arguments(self) -> str:
        match self.name:
            case "DateTime":
                return "'UTC'"
            case "DateTime64":
                return f"{self.number}, 'UTC'"
            case "Decimal":
                return f"{self.number}, {self.scale}"
            case "FixedString":
                return str(self.number)
            case _:
                return ", ".join(part.sql for part in self.inner)

    def with_nullable(self, nullable: bool) -> "ColumnType":
        """The same type with or without null. Raises ValueError for maps and arrays, which know no null."""
        if nullable and self.inner:
            raise ValueError(f"{self.name} cannot be nullable in ClickHouse; an empty one stands for none")
        return replace(self, nullable=nullable)


@lru_cache(maxsize=4096)
def parse(text: str) -> ColumnType:
    """Parse a ClickHouse type. Raises ValueError saying what is wrong with it, with the nearest known name."""
    parser = _Parser(text)
    parsed = parser.type()
    parser.end()
    return parsed


class _Parser:
    """Recursive descent over names, numbers, quoted text, brackets and commas."""

    _TOKEN = re.compile(r"\s*([A-Za-z_]\w*|[0-9]+|'[^']*'|[(),])")

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        self.next = 0
        position, stripped = 0, text.rstrip()
        while position < len(stripped):
            match = self._TOKEN.match(stripped, position)
            if match is None:
                raise ValueError(f"cannot read the type '{text}' at '{stripped[position:]}'")
            self.tokens.append(match[1])
            position = match.end()

    def type(self) -> ColumnType:
        """One type, with its arguments."""
        name = self._take()
        if name not in _KNOWN:
            near = get_close_matches(name, _KNOWN, n=1)
            raise ValueError(f"unknown type '{name or self.text}'" + (f"; did you mean {near[0]}?" if near else ""))
        if self._peek() != "(":
            if name in _EXAMPLES:
                raise ValueError(f"{name} needs its arguments, e.g. {_EXAMPLES[name]}")
            return ColumnType(name)
        read = self._reader(name)
        if read is None:
            raise ValueError(f"{name} takes no arguments, in '{self.text}'")
        self._expect("(")
        parsed = read()
        self._expect(")")
        return parsed

    def end(self) -> None:
        """Nothing may follow."""
        if self._peek():
            raise ValueError(f"the type '{self.text}' goes on after its end: '{self._peek()}'")

    def _peek(self) -> str:
        return self.tokens[self.next] if self.next < len(self.tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self.next += 1
        return token

    def _expect(self, wanted: str) -> None:
        found = self._take()
        if found != wanted:
            raise ValueError(f"the type '{self.text}' has '{found or 'its end'}' where '{wanted}' is expected")

    def _number(self, low: int, high: int, what: str) -> int:
        token = self._take()
        if not token.isdecimal() or not low <= int(token) <= high:
            raise ValueError(f"{what} must be {low} to {high}, not '{token}', in the type '{self.text}'")
        return int(token)

    def _zone(self) -> None:
        """Every timestamp is UTC: a day in another zone is the analytics' business, not the storage's."""
        zone = self._take()
        if zone != "'UTC'":
            raise ValueError(f"the zone of a timestamp must be 'UTC', not {zone or 'nothing'}, in '{self.text}'")

    def _nullable(self) -> ColumnType:
        inner = self.type()
        if inner.nullable or inner.low_cardinality:
            raise ValueError(f"Nullable goes inside LowCardinality and stands once, in '{self.text}'")
        return inner.with_nullable(True)

    def _low_cardinality(self) -> ColumnType:
        inner = self.type()
        if inner.family != "text" or inner.low_cardinality:
            raise ValueError(f"LowCardinality is for String, not {inner.sql}, in '{self.text}'")
        return replace(inner, low_cardinality=True)

    def _decimal(self) -> ColumnType:
        precision = self._number(1, 38, "the precision")
        self._expect(",")
        return ColumnType("Decimal", precision, self._number(0, precision, "the scale"))

    def _date_time(self) -> ColumnType:
        self._zone()
        return ColumnType("DateTime")

    def _date_time_64(self) -> ColumnType:
        digits = self._number(0, 9, "the fraction digits")
        if self._peek() == ",":
            self._expect(",")
            self._zone()
        return ColumnType("DateTime64", digits)

    def _map(self) -> ColumnType:
        key = self.type()
        if key.nullable or key.inner:
            raise ValueError(f"the key of a Map must be a plain type, not {key.sql}")
        self._expect(",")
        return ColumnType("Map", inner=(key, self.type()))

    def _fixed_string(self) -> ColumnType:
        return ColumnType("FixedString", self._number(1, 65535, "the length"))

    def _array(self) -> ColumnType:
        return ColumnType("Array", inner=(self.type(),))

    def _reader(self, name: str) -> Callable[[], ColumnType] | None:
        return {
            "Nullable": self._nullable,
            "LowCardinality": self._low_cardinality,
            "Decimal": self._decimal,
            "FixedString": self._fixed_string,
            "DateTime": self._date_time,
            "DateTime64": self._date_time_64,
            "Map": self._map,
            "Array": self._array,
        }.get(name)
