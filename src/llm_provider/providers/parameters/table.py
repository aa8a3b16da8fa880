"""The fields of one route, as one engine takes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llm_provider.providers.parameters.rules import Rule


@dataclass(frozen=True)
class Table:
    """What an engine does with the fields of a route.

    `done`: fields of OpenAI's API that the engine reads: it does what they ask, or refuses them in
    its own words. `extensions`: further fields that it reads. `rules`: values of fields that it
    ignores; where several are about the same value, the first counts.
    """

    done: frozenset[str]
    extensions: frozenset[str]
    rules: tuple[Rule, ...]

    @property
    def known(self) -> frozenset[str]:
        """All fields of which something is known."""
        return self.done | self.extensions | {rule.field for rule in self.rules}


def words(text: str) -> frozenset[str]:
    """Return the names in a text, which blanks and line ends separate."""
    return frozenset(text.split())


def table(done: str, extensions: str, *rules: Iterable[Rule]) -> Table:
    """Return a table from names in texts and from rules in groups."""
    return Table(words(done), words(extensions), tuple(rule for group in rules for rule in group))
