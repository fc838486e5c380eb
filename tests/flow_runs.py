"""A flow with Dagster on top: its definitions, an instance in PostgreSQL, backfills as the command runs them."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg

from data_platform.assets.keys import Stage, stage_key
from data_platform.build import build_defs
from data_platform.jobs.backfill import BackfillPlan, BackfillResult, Checkpoint, plan_backfill, run_backfill
from data_platform.jobs.instance import open_instance
from data_platform.local.cloud import Cloud
from tests.flow import LEASE_S, Flow, open_flow


@dataclass
class FlowRuns:
    """Backfills of a flow's datasets and what Dagster's event log says of them."""

    flow: Flow
    instance: dg.DagsterInstance
    definitions: dg.Definitions
    told: list[Checkpoint] = field(default_factory=list[Checkpoint])

    def plan(self, name: str, first: date | None = None, last: date | None = None, **options: Any) -> BackfillPlan:
        return plan_backfill(
            self.flow.catalog, self.instance, f"{self.flow.domain}/{name}", first=first, last=last or first, **options
        )

    def run(self, plan: BackfillPlan) -> BackfillResult:
        self.told.clear()
        return run_backfill(self.definitions, self.flow.catalog, self.instance, plan, self.told.append)

    def backfill(
        self, name: str, first: date | None = None, last: date | None = None, **options: Any
    ) -> BackfillResult:
        return self.run(self.plan(name, first, last, **options))

    def events(self, run_id: str, stage: Stage, name: str) -> dict[str | None, dg.AssetMaterialization]:
        """A run's materialisations of one asset by partition; fails where a partition has two."""
        found: dict[str | None, dg.AssetMaterialization] = {}
        for record in self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
            event = record.asset_materialization
            assert event is not None
            if event.asset_key == stage_key(stage, self.flow[name]):
                assert event.partition not in found
                found[event.partition] = event
        return found


@contextmanager
def flow_runs(
    cloud: Cloud, folder: Path, *entries: dict[str, Any] | str, lease_s: float = LEASE_S
) -> Generator[FlowRuns]:
    """`open_flow`, with the environment that leads a run to it."""
    with (
        open_flow(cloud, folder, *entries, lease_s=lease_s) as flow,
        mock.patch.dict(os.environ, flow.env),
        open_instance(flow.settings) as instance,
    ):
        yield FlowRuns(flow, instance, build_defs(flow.settings, catalog=flow.catalog))
