"""Every message that asks a person for something, as a page to read: each has to be understood without anything else.

Refresh it after a wanted change, then read it as somebody who knows nothing else: python -m tests.alerts.test_messages
"""

import sys
from pathlib import Path

import pytest

from data_platform.alerts.message import YOURS
from data_platform.assets.checks import BOUNDARY
from data_platform.catalog.models import NotNull, Range, RowDrift
from data_platform.errors import TELL_THE_TEAM
from data_platform.loading.errors import Code
from data_platform.provisioning.alarms import ALARMS
from data_platform.quality.rules import rules_of
from tests.alerts.kinds import ORDERS, broken_layers
from tests.alerts.sent import alerts
from tests.alerts.shown import PARTS, alarms, dead_letters

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).with_name("golden") / "messages.txt"


def page() -> str:
    """All of it."""
    lines: list[str] = ["# What people are sent", ""]
    for title, messages in alerts():
        lines += [f"## {title}", ""]
        for message in messages:
            lines += [f"    {line}".rstrip() for line in (message.title, *message.body.splitlines())] + [""]
    for part, shown in PARTS.items():
        lines += [f"# {part}", ""]
        for title, told in shown():
            lines += [f"## {title}", "", *(f"    {line}" for line in told), ""]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def whole() -> str:
    return page()


def test_the_messages_are_as_they_were_read(whole: str) -> None:
    assert whole == GOLDEN.read_text(encoding="utf-8"), __doc__


def test_every_message_says_why_what_to_do_and_whom_it_is_for(whole: str) -> None:
    sent, _, _ = whole.partition("\n# What stands")
    messages = [message for kind in sent.split("\n## ")[1:] for message in kind.split("\n\n")[1:] if message.strip()]
    assert len(messages) > 40
    for message in messages:
        title, act, *lines = [line.strip() for line in message.strip().splitlines()]
        assert "[prod]" in title
        assert any(line.startswith("Why") for line in lines), message
        assert act.startswith(("Act now: yes", "Act now: no. ")), message
        steps = "If it fails again: " if act.startswith("Act now: no") else "What to do: "
        assert any(line.startswith(steps) and len(line) > 30 for line in lines), message
        assert lines[-1].startswith("Sent to ")


def test_nobody_is_asked_to_tell_himself(whole: str) -> None:
    sent, _, _ = whole.partition("\n# What stands")
    for message in sent.split("\n## ")[1:]:
        assert not (TELL_THE_TEAM in message and "Sent to you because nobody else" in message), message
    assert sent.count(YOURS) > 5
    assert sent.count(TELL_THE_TEAM) > 5


def test_no_kind_is_left_out_of_the_page() -> None:
    assert {NotNull, Range, RowDrift} < {type(rule.check) for rule in rules_of(ORDERS)}
    assert {finding.check for finding in broken_layers()} == set(BOUNDARY.values())
    assert len(list(dead_letters())) == len(Code)
    told = [name for name, _ in alarms()]
    assert {f"prod-{alarm.name}" for alarm in ALARMS} < set(told)
    assert len(told) == len(ALARMS) + 11


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(page(), encoding="utf-8")
    sys.stdout.write(page())
