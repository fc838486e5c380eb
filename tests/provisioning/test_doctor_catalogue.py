"""The doctor on a catalogue with mistakes: says so first, with their true number, and stops there."""

from pathlib import Path

import pytest

from data_platform.catalog import CatalogError, load_catalog
from data_platform.provisioning.checks import Status, examine
from data_platform.settings import Settings

pytestmark = pytest.mark.unit


def test_a_catalogue_with_mistakes_is_the_only_finding_and_counts_them(tmp_path: Path) -> None:
    dataset = tmp_path / "datasets" / "market" / "wrong.yaml"
    dataset.parent.mkdir(parents=True)
    dataset.write_text("- no mapping\n")
    (tmp_path / "domains.yaml").write_text("- name: market\n  name: market\n")
    with pytest.raises(CatalogError) as mistakes:
        load_catalog(tmp_path)
    (finding,) = examine(Settings(catalog=tmp_path))
    assert finding.status is Status.FAILED
    assert len(mistakes.value.problems) > 1
    assert finding.detail == f"{tmp_path}: mistakes: {len(mistakes.value.problems)}"
    assert finding.hint == "data-platform catalog check"
