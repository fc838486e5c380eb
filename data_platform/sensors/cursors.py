"""What a sensor remembers between two ticks: small, with a version, begun anew where it cannot be read."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class SensorCursor(BaseModel):
    """The base of all; each has a field `v: Literal[n] = n`, so that another version's is not mistaken for it."""

    model_config = ConfigDict(extra="forbid")


C = TypeVar("C", bound=SensorCursor)


def read_cursor(text: str | None, fresh: C) -> C:
    """The cursor in `text`, or `fresh`: there is none, it was cut short, or it is another version's."""
    try:
        return type(fresh).model_validate_json(text or "")
    except ValidationError:
        return fresh
