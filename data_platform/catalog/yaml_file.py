"""One YAML file -> plain data, strictly: duplicate keys and anything but one document are mistakes with their line."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

Mistake = tuple[str, str]  # where (`line 7`, or empty) and why

# libyaml's parser: ten times as quick as the Python one, which matters at hundreds of datasets.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Base):
    """Plain YAML would keep the last of two equal keys without a word; here `mistakes` tells."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.mistakes: list[Mistake] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping, with a mistake noted for every key that stands twice."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.mistakes.append((_line(key_node.start_mark), "a key must be plain text"))
            elif key_node.value in seen:
                self.mistakes.append((_line(key_node.start_mark), f"duplicate key '{key_node.value}'"))
            else:
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)

    def construct_date(self, node: yaml.ScalarNode) -> object:
        """A date; text where there is no such day (2013-13-01): the field it stands in says what it wants instead."""
        try:
            return self.construct_yaml_timestamp(node)
        except ValueError:
            return node.value


_StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", _StrictLoader.construct_date)


def read_yaml(path: Path) -> tuple[Any, list[Mistake]]:
    """The file's one document and the mistakes found on the way; None with the reason where it cannot be read."""
    try:
        loader = _StrictLoader(path.read_bytes())
    except OSError as error:
        return None, [("", f"cannot be read: {error.strerror}")]
    except yaml.YAMLError as error:
        return None, [("", f"not valid YAML: {error}")]
    try:
        return loader.get_single_data(), loader.mistakes
    except yaml.MarkedYAMLError as error:
        reason = " ".join(part for part in (error.context, error.problem) if part)
        mistake = (_line(error.problem_mark or error.context_mark), f"not valid YAML: {reason}")
        return None, [*loader.mistakes, mistake]
    except (yaml.YAMLError, ValueError) as error:
        return None, [*loader.mistakes, ("", f"not valid YAML: {error}")]
    finally:
        loader.dispose()


def _line(mark: Any) -> str:
    return "" if mark is None else f"line {mark.line + 1}"
