"""What the front does with one statement's text: pass it, translate it, run it as UNLOAD, or refuse it."""

import re
from dataclasses import dataclass

from data_platform.local.warehouse.translate import translate
from data_platform.local.warehouse.unload import is_unload, parse_unload
from data_platform.local.warehouse.unload.contract import UnloadStatement, WarehouseError

DEFAULT_LABEL = "default"
_LABEL = re.compile(
    r"\s*(?:set\s+(?:session\s+|local\s+)?query_group\s*(?:\bto\b|=)\s*(?:'((?:[^'\\]|\\.|'')*)'|(\w+))"
    r"|(reset\s+(?:query_group|all)))",
    re.IGNORECASE,
)
_READS_LOG = re.compile(r"pg_last_query_id|\b(?:stl|stv|sys|svl)_", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """A statement: as the client wrote it, as PostgreSQL gets it, and what it is when it is no ordinary one."""

    text: str
    sent: str
    unload: UnloadStatement | None = None
    error: WarehouseError | None = None

    @property
    def reads_log(self) -> bool:
        """Whether it reads what the front writes: that has to be written first."""
        return _READS_LOG.search(self.text) is not None

    @property
    def label(self) -> str | None:
        """The query group it sets, None when it sets none."""
        found = _LABEL.match(self.text)
        if found is None:
            return None
        quoted, word, reset = found.groups()
        return DEFAULT_LABEL if reset else word or (quoted or "").replace("''", "'") or DEFAULT_LABEL


def plan(text: str) -> Plan:
    """Decide about one Query's or Parse's text."""
    if not is_unload(text):
        return Plan(text, translate(text))
    try:
        return Plan(text, "", unload=parse_unload(text))
    except WarehouseError as error:
        return Plan(text, "", error=error)
