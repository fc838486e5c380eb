"""Automation conditions by name: when an asset is made without a schedule asking for it. What each costs is said here.

Conditions see of a failure only that there was one, never whether it may pass: each of ours therefore stops at a
failed attempt and leaves the next one to who knows (the repairing schedule, a person).
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg

Asset = dg.AssetsDefinition | dg.AssetSpec
Condition = dg.AutomationCondition[Any]
NAME = "automation"
INTERVAL_S = 60
NEXT_LAYER_DAYS = 7  # as far back as the schedules repair


def not_failed_since_wanted(condition: Condition) -> Condition:
    """`condition`, but never again for what failed last time.

    Without it `eager` asks for a broken partition after every new event upstream, for ever. The price: after a
    failure that would have passed, somebody else has to ask; the daily schedule does within a day.
    """
    return (condition & ~dg.AutomationCondition.execution_failed()).with_label("wanted and not failed")


def after_new_events(cron: str, *, time_zone: str = "UTC") -> Condition:
    """Once per tick of `cron`, when anything upstream is newer than the asset; never while upstream is being made.

    For summaries: the loader reports loads every few seconds, and a rebuild per report would keep ClickHouse busy all
    day. The price is that a summary is up to one tick of `cron` behind.
    """
    newer = dg.AutomationCondition.any_deps_updated().since(dg.AutomationCondition.newly_requested())
    calm = ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()
    tick = dg.AutomationCondition.cron_tick_passed(cron, time_zone)
    return not_failed_since_wanted(tick & newer & calm)


def next_layer(*, days: int = NEXT_LAYER_DAYS) -> Condition:
    """As soon as a partition of the last `days` is newer in the layer before it, or about to be: a chain is one run.

    For a split installation, where the ClickHouse side runs apart from the AWS side and no run spans both. Prices: a
    run per new partition instead of one per range, so the shipped definitions do not use it (their layers follow each
    other inside one run); and what was made before the sensor first looked, or is older than `days`, is the schedule's.

    Dagster's `eager` asks the storage for the missing, running and failed partitions of every asset at every tick:
    219 s for 1,000 datasets of three layers on a busy machine. Here that is asked of those alone that have something
    new: an operand behind `&` costs nothing while the ones before it leave no candidate.
    """
    condition = dg.AutomationCondition
    newer = condition.any_deps_match(condition.newly_updated() | condition.will_be_requested())
    wanted = newer.since(condition.newly_requested() | condition.newly_updated())
    calm = ~condition.any_deps_in_progress() & ~condition.in_progress()
    lately = condition.in_latest_time_window(timedelta(days=days))
    return not_failed_since_wanted(wanted.with_label("the layer before it is newer") & lately & calm)


def with_automation(assets: Iterable[Asset], conditions: Mapping[str, Condition]) -> list[Asset]:
    """`assets` with a condition, by the first part of their key, on every one that has none yet."""

    def automated(spec: dg.AssetSpec) -> dg.AssetSpec:
        condition = conditions.get(spec.key.path[0])
        if condition is None or spec.automation_condition is not None:
            return spec
        return spec.replace_attributes(automation_condition=condition)

    return list(dg.map_asset_specs(automated, list(assets)))


def automation_sensor(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """What evaluates the conditions; off unless the settings name it."""
    return dg.AutomationConditionSensorDefinition(
        NAME, target=dg.AssetSelection.all(), default_status=status, minimum_interval_seconds=INTERVAL_S
    )
