"""What a table is made from and what is made from it, asset by asset and column by column, without any engine."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import dagster as dg

from data_platform.assets.keys import Stage, stage_key, stages_of
from data_platform.assets.metadata import column_lineage
from data_platform.catalog import Catalog
from data_platform.errors import ConfigurationError

Columns = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Step:
    """One asset on the way: its distance from the asked one, what it reads, per column `asset.column` it comes from."""

    key: str
    depth: int
    description: str
    reads: tuple[str, ...]
    columns: Columns = field(default_factory=dict[str, tuple[str, ...]])


@dataclass(frozen=True)
class Lineage:
    """The asked asset, what it is made from (nearest first), what is made from it (nearest first)."""

    asked: Step
    up: tuple[Step, ...]
    down: tuple[Step, ...]


def lineage_of(definitions: dg.Definitions, catalog: Catalog, name: str) -> Lineage:
    """The lineage of `name`: an asset key, or `<domain>/<dataset>` for its ClickHouse table.

    Raises ConfigurationError for a name that nothing has, with the nearest ones.
    """
    specs = {spec.key: spec for spec in definitions.resolve_all_asset_specs()}
    key = _find(specs, catalog, name)
    parents = {each: [dep.asset_key for dep in spec.deps] for each, spec in specs.items()}
    children: dict[dg.AssetKey, list[dg.AssetKey]] = {}
    for each, above in parents.items():
        for parent in above:
            children.setdefault(parent, []).append(each)
    columns = _columns(catalog)

    def step(each: dg.AssetKey, depth: int) -> Step:
        spec = specs.get(each)
        description = ((spec.description if spec is not None else None) or "").strip().partition("\n")[0]
        reads = tuple(sorted(parent.to_user_string() for parent in parents.get(each, [])))
        return Step(each.to_user_string(), depth, description, reads, columns.get(each) or _declared(spec))

    return Lineage(
        step(key, 0),
        tuple(step(each, depth) for each, depth in _walk(key, parents)),
        tuple(step(each, depth) for each, depth in _walk(key, children)),
    )


def _find(specs: Iterable[dg.AssetKey], catalog: Catalog, name: str) -> dg.AssetKey:
    known = set(specs)
    wanted = name.strip("/").lower()
    for key in (dg.AssetKey(wanted.split("/")), dg.AssetKey([Stage.CLICKHOUSE.value, *wanted.split("/")])):
        if key in known:
            return key
    last = wanted.rpartition("/")[2]
    near = sorted(key.to_user_string() for key in known if last and last in key.to_user_string())[:5]
    hint = f"did you mean {', '.join(near)}?" if near else f"datasets: {', '.join(sorted(catalog.datasets))}"
    raise ConfigurationError(f"there is no asset {name}", hint=hint)


def _walk(start: dg.AssetKey, edges: Mapping[dg.AssetKey, list[dg.AssetKey]]) -> list[tuple[dg.AssetKey, int]]:
    """Everything reachable with its least distance, nearest first."""
    seen: dict[dg.AssetKey, int] = {start: 0}
    ring = [start]
    while ring:
        following = sorted({n for key in ring for n in edges.get(key, []) if n not in seen}, key=str)
        seen |= dict.fromkeys(following, seen[ring[0]] + 1)
        ring = following
    return [(key, depth) for key, depth in seen.items() if depth]


def _columns(catalog: Catalog) -> dict[dg.AssetKey, Columns]:
    found: dict[dg.AssetKey, Columns] = {}
    for dataset in catalog.datasets.values():
        for stage in stages_of(dataset):
            told = column_lineage(dataset, stage)
            if told is not None:
                found[stage_key(stage, dataset)] = _flat(told)
    return found


def _declared(spec: dg.AssetSpec | None) -> Columns:
    told = None if spec is None else spec.metadata.get("dagster/column_lineage")
    value = getattr(told, "value", told)
    return _flat(value) if isinstance(value, dg.TableColumnLineage) else {}


def _flat(told: dg.TableColumnLineage) -> Columns:
    return {
        column: tuple(f"{dep.asset_key.to_user_string()}.{dep.column_name}" for dep in deps)
        for column, deps in told.deps_by_column.items()
    }
