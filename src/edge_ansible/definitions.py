"""The variables of a host, with those of the project's roles, evaluated outside of a task of theirs.

So a decision is defined once, in a role, for its tasks and for all hosts at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLES = ("preflight", "stack", "verify")


def load_roles(loader: DataLoader, folders: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The defaults and the variables of ROLES, from the first folder that has each role."""
    defaults: dict[str, Any] = {}
    variables: dict[str, Any] = {}
    places = [Path(each) for each in folders]
    for role in ROLES:
        place = next(each / role for each in places if (each / role).is_dir())
        for kind, into in (("defaults", defaults), ("vars", variables)):
            into |= loader.load_from_file(str(place / kind / "main.yml"), trusted_as_template=True)
    return defaults, variables


class Definitions:
    """The variables of one host, as a task of the roles would have them."""

    def __init__(
        self,
        loader: DataLoader,
        roles: tuple[Mapping[str, Any], Mapping[str, Any]],
        variables: Mapping[str, Any],
    ) -> None:
        defaults, of_roles = roles
        self._variables = {**defaults, **variables, **of_roles}
        self._templar = Templar(loader=loader, variables=self._variables)

    def evaluate(self, name: str) -> Any:
        """The value of a variable."""
        return self._templar.resolve_variable_expression(name)

    def set(self, **facts: Any) -> None:
        """Set facts, as a task of a role would."""
        self._variables.update(facts)
        self._templar.available_variables = self._variables

    def keep(self, *names: str) -> dict[str, Any]:
        """Evaluate variables, and set them to their values: others that use them are faster."""
        found = {name: self.evaluate(name) for name in names}
        self.set(**found)
        return found
