"""A mistake in the catalogue and how a person reads it. Finding mistakes is validate.py's, rules.py's and sql.py's."""

from dataclasses import dataclass

from data_platform.errors import Fault, PlatformError


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake: the file (relative to the catalogue's folder), the path in it (`columns[3].type`), the reason."""

    file: str
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.path}: {self.reason}" if self.path else f"{self.file}: {self.reason}"


class CatalogError(PlatformError):
    """The catalogue has mistakes; `problems` holds all of them."""

    fault = Fault.CONFIGURATION

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        count = f"{len(problems)} mistake{'' if len(problems) == 1 else 's'} in the catalogue"
        super().__init__("\n  ".join([count + ":", *map(str, self.problems)]), hint="data-platform catalog check")


def path_text(parts: tuple[str | int, ...]) -> str:
    """`("columns", 3, "type")` as `columns[3].type`."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
