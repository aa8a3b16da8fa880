"""A YAML file with the line of each of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

Path = Sequence[str | int]


class InvalidYamlError(Exception):
    """The text is no YAML, or holds what it may not; `line` is where, from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


class YamlFile:
    """`data` is what a text of YAML holds. Raises InvalidYamlError."""

    def __init__(self, text: str) -> None:
        self._checked: set[int] = set()
        loader = yaml.SafeLoader(text)
        try:
            self._root = loader.get_single_node()
            if self._root is None:
                raise InvalidYamlError(1, "the file is empty")
            self._check(self._root, frozenset())
            self.data: Any = loader.construct_document(self._root)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise InvalidYamlError(mark.line + 1 if mark else 1, error.problem or "") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InvalidYamlError(1, " ".join(str(error).split())) from error
        finally:
            loader.dispose()

    def line(self, path: Path) -> int:
        """The line of a part of the file: keys and numbers of items, from the outermost on."""
        node, line = self._root, 1
        for step in path:
            if isinstance(node, yaml.MappingNode):
                found = [(key, each) for key, each in node.value if key.value == str(step)]
                if not found:
                    break
                line, node = found[0][0].start_mark.line + 1, found[0][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                node = node.value[step]
                line = node.start_mark.line + 1
        return line

    def _check(self, node: yaml.Node, above: frozenset[int]) -> None:
        """Refuse a key that stands twice, of which YAML would keep the last one without a word, and
        a part that contains itself."""
        if id(node) in above:
            raise InvalidYamlError(node.start_mark.line + 1, "an alias leads to its own anchor")
        if id(node) in self._checked:
            return
        within = above | {id(node)}
        if isinstance(node, yaml.SequenceNode):
            for each in node.value:
                self._check(each, within)
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                name = str(key.value)
                if name in keys and name != "<<":
                    raise InvalidYamlError(
                        key.start_mark.line + 1, f"the key {name} stands there twice"
                    )
                keys.add(name)
                self._check(value, within)
        self._checked.add(id(node))
