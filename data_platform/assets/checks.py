"""The checks of a dataset's layers as Dagster shows them, asked partition by partition inside the dataset's own run.

A range of a year stays one process: each partition logs an evaluation of its own (Dagster would write a single one for
the whole range). What is compared lives in quality/, not here.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import dagster as dg

from data_platform.assets.keys import Stage, partitions_of, stage_key, stages_of
from data_platform.assets.stages import StageResult, StageRunner
from data_platform.catalog.models import Dataset
from data_platform.errors import PlatformError
from data_platform.quality import layers
from data_platform.quality.finding import Finding, Weight
from data_platform.quality.rules import check_rows, rules_of

# The boundary check of each layer: while it fails, the later layers of that partition are not made.
BOUNDARY: Mapping[Stage, str] = {
    Stage.UNLOAD: layers.UNLOADED,
    Stage.CURATED: layers.CURATED,
    Stage.CLICKHOUSE: layers.LOADED,
}
NEXT_STEP = "next_step"  # metadata of an evaluation: what to do
SEVERITY = {Weight.ERROR: dg.AssetCheckSeverity.ERROR, Weight.WARNING: dg.AssetCheckSeverity.WARN}


class BoundaryError(PlatformError):
    """A layer does not hold what the one before it holds; the partition's later layers were not made."""

    @classmethod
    def of(cls, breach: Finding) -> "BoundaryError":
        """The error that a boundary check's finding ends the day with."""
        return cls(breach.sentence, hint=f"{breach.step.rstrip('.')}. The day's later layers are not made until then")


def check_specs(dataset: Dataset) -> list[dg.AssetCheckSpec]:
    """Reconciliation at every layer of a dataset, and the catalogue's rules on its ClickHouse table."""
    wanted = [
        (BOUNDARY[stage], stage_key(stage, dataset), layers.DESCRIPTIONS[BOUNDARY[stage]], True)
        for stage in stages_of(dataset)
    ]
    table = stage_key(Stage.CLICKHOUSE, dataset)
    wanted += [(rule.name, table, rule.description, False) for rule in rules_of(dataset)]
    with warnings.catch_warnings():
        # Checks by partition are in preview. All that would be lost with them is their place beside the partition, so
        # they are used, and nobody who runs a command needs to read of it once per check.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                name, asset=key, description=description, blocking=blocking, partitions_def=partitions_of(dataset)
            )
            for name, key, description, blocking in wanted
        ]


def told(finding: Finding) -> str:
    """What the UI shows beside a check: what was found and, where it did not pass, what to do."""
    return f"{finding.sentence} {finding.step}".strip()


def metadata_of(finding: Finding) -> dict[str, int | float | str]:
    """The numbers behind the sentence; `next_step` apart, for who writes messages."""
    return {**finding.facts, **({NEXT_STEP: finding.step} if finding.step else {})}


@dataclass(frozen=True)
class StageChecks:
    """Asks the selected checks of one dataset through the run's connections, from the threads its days run in."""

    runner: StageRunner
    dataset: Dataset
    selected: frozenset[dg.AssetCheckKey]

    def ask(
        self, stage: Stage, ds: date, emit: Callable[[dg.AssetCheckEvaluation], None], *, made: StageResult | None
    ) -> None:
        """Evaluate the layer's checks of one partition; `made` is what this run has just made of it, if it did.

        Raises BoundaryError when the layer does not agree with the one before it.
        """
        breach: Finding | None = None
        for finding in self._findings(stage, ds, made):
            emit(self._evaluation(stage, ds, finding))
            if finding.check == BOUNDARY[stage] and not finding.passed:
                breach = finding
        if breach is not None:
            raise BoundaryError.of(breach)

    def _wants(self, stage: Stage, name: str) -> bool:
        return dg.AssetCheckKey(stage_key(stage, self.dataset), name) in self.selected

    def _findings(self, stage: Stage, ds: date, made: StageResult | None) -> Iterator[Finding]:
        if self._wants(stage, BOUNDARY[stage]):
            yield self._boundary(stage, ds, made)
        if stage is Stage.CLICKHOUSE:
            rules = [rule for rule in rules_of(self.dataset) if self._wants(stage, rule.name)]
            yield from check_rows(self.runner.warehouse.client, self.dataset, ds, rules)

    def _boundary(self, stage: Stage, ds: date, made: StageResult | None) -> Finding:
        runner, dataset = self.runner, self.dataset
        if stage is Stage.CLICKHOUSE:
            return layers.check_loaded(runner.warehouse, dataset, ds)
        if stage is Stage.CURATED:
            return layers.check_curated(runner.settings, runner.s3, lambda: runner.ledger, dataset, ds)
        if made is not None:
            return layers.unload_proven(made.rows, int(made.metadata.get("files", 0)))
        return layers.check_unload(runner.settings, runner.s3, runner.ledger, dataset, ds)

    def _evaluation(self, stage: Stage, ds: date, finding: Finding) -> dg.AssetCheckEvaluation:
        return dg.AssetCheckEvaluation(
            asset_key=stage_key(stage, self.dataset),
            check_name=finding.check,
            passed=finding.passed,
            severity=SEVERITY[finding.weight],
            description=told(finding),
            metadata=metadata_of(finding),
            blocking=finding.check == BOUNDARY[stage],
            partition=None if partitions_of(self.dataset) is None else ds.isoformat(),
        )
