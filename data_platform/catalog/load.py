"""catalog/*.yaml -> one frozen Catalog, or a CatalogError with every mistake of every file.

What belongs here: which files there are, what lies where, names that must be unique. What does not: the form of one
entry (validate.py), what its values may say together (rules.py), SQL (sql.py: only on demand, it is slow to import).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar, cast

from data_platform.catalog import rules
from data_platform.catalog.models import Dataset, Domain, Service, Topic, UserStatistics
from data_platform.catalog.problems import CatalogError, Problem, path_text
from data_platform.catalog.validate import nearest, validate
from data_platform.catalog.yaml_file import read_yaml
from data_platform.errors import ConfigurationError

Named = TypeVar("Named", Dataset, Domain, Service, Topic)
YAML_SUFFIXES = {".yaml", ".yml"}
STATISTICS_FILE = "statistics.yaml"


@dataclass(frozen=True)
class Catalog:
    """Everything that moves. Datasets are keyed `<domain>/<name>`, the others by name; iteration is in name order."""

    datasets: Mapping[str, Dataset]
    domains: Mapping[str, Domain]
    services: Mapping[str, Service]
    topics: Mapping[str, Topic]
    statistics: UserStatistics = field(default_factory=UserStatistics)

    def dataset(self, key: str) -> Dataset:
        """The dataset called `<domain>/<name>`. Raises ConfigurationError with the nearest key there is."""
        found = self.datasets.get(key)
        if found is None:
            near = nearest(key, list(self.datasets))
            raise ConfigurationError(f"no dataset '{key}' in the catalogue{near}", hint="data-platform catalog list")
        return found

    def in_domain(self, domain: str) -> list[Dataset]:
        """The datasets of a domain."""
        return [dataset for dataset in self.datasets.values() if dataset.domain == domain]


@dataclass
class _Found:
    """What has been read so far, mistakes included."""

    folder: Path
    problems: list[Problem] = field(default_factory=list[Problem])

    def add(self, file: str, mistakes: Iterable[tuple[tuple[str | int, ...], str]]) -> None:
        self.problems += [Problem(file, path_text(path), reason) for path, reason in mistakes]

    def read(self, path: Path) -> tuple[str, object]:
        """The file's name in problems and its data; None where it could not be read."""
        file = path.relative_to(self.folder).as_posix()
        data, mistakes = read_yaml(path)
        self.problems += [Problem(file, where, reason) for where, reason in mistakes]
        return file, data


def load_catalog(folder: Path | str, *, parse_sql: bool = False) -> Catalog:
    """Read the catalogue in `folder`.

    `parse_sql` also parses the SQL of sources and readiness conditions; `catalog check` does, runs do not: importing
    the SQL parser costs more than reading a hundred datasets, and nothing is sent to Redshift unguarded anyway.
    Raises CatalogError with all mistakes of all files.
    """
    found = _Found(Path(folder))
    if not found.folder.is_dir():
        raise CatalogError([Problem(str(folder), "", "no such folder; DATA_PLATFORM_CATALOG names it")])
    domains = _by_name(_read_list(found, "domains.yaml", Domain))
    services = _read_list(found, "services.yaml", Service)
    topics = _by_name(_read_list(found, "topics.yaml", Topic))
    statistics = _read_statistics(found)
    datasets = _read_datasets(found, domains, parse_sql=parse_sql)
    found.add("services.yaml", rules.service_problems(services))
    found.problems += rules.catalog_problems(datasets, list(services.values()))
    found.problems += _stray_files(found.folder)
    if found.problems:
        raise CatalogError(list(dict.fromkeys(found.problems)))
    return Catalog(
        datasets=_frozen({key: dataset for key, (_, dataset) in datasets.items()}),
        domains=_frozen(domains),
        services=_frozen(_by_name(services)),
        topics=_frozen(topics),
        statistics=statistics,
    )


def _read_statistics(found: _Found) -> UserStatistics:
    """The one mapping of statistics.yaml; the defaults where there is no such file."""
    path = found.folder / STATISTICS_FILE
    if not path.exists():
        return UserStatistics()
    file, data = found.read(path)
    if data is None:
        return UserStatistics()
    draft, mistakes = validate(UserStatistics, data)
    found.add(file, mistakes)
    return UserStatistics() if draft is None else draft.model


def _read_list(found: _Found, name: str, model: type[Named]) -> dict[int, Named]:
    """The entries of a file that is one list, by position; of equal names the first. A missing file is a mistake."""
    file, data = found.read(found.folder / name)
    if data is None:
        return {}
    if not isinstance(data, list):
        found.add(file, [((), f"must be a list of entries, each beginning with `- name:`, not {type(data).__name__}")])
        return {}
    entries: dict[int, Named] = {}
    for position, entry in enumerate(cast("list[object]", data)):
        draft, mistakes = validate(model, entry)
        found.add(file, [((position, *path), reason) for path, reason in mistakes])
        if draft is None:
            continue
        found.add(file, [((position, *path), reason) for path, reason in rules.problems(draft)])
        if "name" in draft.unsure:
            continue
        first = next((other for other, each in entries.items() if each.name == draft.model.name), None)
        if first is None:
            entries[position] = draft.model
        else:
            reason = f"'{draft.model.name}' stands here and at [{first}]; a name stands once"
            found.add(file, [((position, "name"), reason)])
    return entries


def _by_name(entries: Mapping[int, Named]) -> dict[str, Named]:
    return {entry.name: entry for entry in entries.values()}


def _read_datasets(found: _Found, domains: Mapping[str, Domain], *, parse_sql: bool) -> dict[str, tuple[str, Dataset]]:
    """The datasets with the file each stands in, by key."""
    datasets: dict[str, tuple[str, Dataset]] = {}
    for path in sorted(found.folder.glob("datasets/**/*")):
        if path.suffix not in YAML_SUFFIXES or not path.is_file():
            continue
        file, data = found.read(path)
        if data is None:
            if not any(problem.file == file for problem in found.problems):
                found.add(file, [((), "is empty; a dataset file holds one dataset")])
            continue
        draft, mistakes = validate(Dataset, data)
        found.add(file, mistakes)
        if draft is None:
            continue
        found.add(file, rules.problems(draft))
        found.add(file, rules.place_problems(draft, path.relative_to(found.folder / "datasets"), domains))
        if parse_sql:
            from data_platform.catalog import sql

            found.add(file, sql.problems(draft.model))
        if draft.unsure & {"name", "domain"}:
            continue
        first, _ = datasets.setdefault(draft.model.key, (file, draft.model))
        if first != file:
            found.add(file, [(("name",), f"'{draft.model.key}' is described in {first} already")])
    return datasets


def _stray_files(folder: Path) -> Iterator[Problem]:
    """YAML that nobody reads is a mistake: its author believes that it counts."""
    known = {"domains.yaml", "services.yaml", "topics.yaml", STATISTICS_FILE}
    for path in sorted(folder.glob("*")):
        if path.suffix in YAML_SUFFIXES and path.name not in known:
            yield Problem(path.name, "", f"is read by nobody{nearest(path.name, sorted(known))}")


def _frozen(entries: Mapping[str, Named]) -> Mapping[str, Named]:
    return MappingProxyType({key: entries[key] for key in sorted(entries)})
