"""docs/reference.md is what the code says."""

from pathlib import Path

import pytest

from data_platform.cli.reference import reference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference.md"
pytestmark = pytest.mark.unit


def test_the_reference_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "python -m data_platform.cli.reference > docs/reference.md"


def test_every_command_is_in_it_with_its_options() -> None:
    page = reference()
    assert "### `data-platform lineage KEY`" in page
    assert "| `--dry-run` | Print the plan and stop. |" in page
    assert "| `clickhouse/market/flights` | `latest_day_is_there`" in page


def test_pictures_that_the_operator_s_guide_shows_are_there_and_small() -> None:
    guide = (PAGE.parent / "operations.md").read_text(encoding="utf-8")
    shown = [part.partition(")")[0] for part in guide.split("](")[1:] if part.startswith("screenshots/")]
    for name in shown:
        assert (PAGE.parent / name).stat().st_size < 200_000, name
