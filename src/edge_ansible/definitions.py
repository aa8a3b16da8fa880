"""The variables of a host with those of the project's roles, evaluated outside of their tasks.

So a decision is defined once, in a role, for its tasks and for all hosts at once. Templates that
hosts share are compiled once: Ansible compiles each one again wherever it is used, which is half of
the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import CodeType
from typing import Any, ClassVar

from ansible._internal._templating._engine import TemplateEngine
from ansible._internal._templating._jinja_bits import AnsibleEnvironment, _TemplateCompileContext
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from edge_ansible.roles import find_role

ROLES = ("preflight", "stack", "verify")


def load_roles(loader: DataLoader, folders: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The defaults and the variables of ROLES, from the first folder that has each role."""
    defaults: dict[str, Any] = {}
    variables: dict[str, Any] = {}
    places = list(folders)
    for role in ROLES:
        place = find_role(places, role)
        for kind, into in (("defaults", defaults), ("vars", variables)):
            into |= loader.load_from_file(str(place / kind / "main.yml"), trusted_as_template=True)
    return defaults, variables


class _Environment(AnsibleEnvironment):  # type: ignore[misc]
    """Ansible's environment of Jinja, which keeps what it has compiled."""

    _compiled: ClassVar[dict[tuple[str, bool], CodeType]] = {}

    def compile(self, source: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(source, str) or args or any(kwargs.values()) or self.overlayed:
            return super().compile(source, *args, **kwargs)
        options = _TemplateCompileContext.current(optional=True)
        key = (str(source), bool(options and options.escape_backslashes))
        if key not in self._compiled:
            self._compiled[key] = super().compile(source)
        return self._compiled[key]


class _Engine(TemplateEngine):  # type: ignore[misc]
    _environment: Any

    @property
    def environment(self) -> AnsibleEnvironment:
        made: AnsibleEnvironment | None = self._environment
        if made is None:
            self._environment = made = _Environment(ansible_basedir=self.basedir)
        return made


class Definitions:
    """The variables of one host, as a task of the roles would have them."""

    def __init__(
        self,
        loader: DataLoader,
        roles: tuple[Mapping[str, Any], Mapping[str, Any]],
        variables: Mapping[str, Any],
    ) -> None:
        defaults, of_roles = roles
        self.given = frozenset(variables)
        """The names of variables that are no role's own."""
        self._variables = {**defaults, **variables, **of_roles}
        engine = _Engine(loader=loader, variables=self._variables)
        self._templar = Templar._from_template_engine(engine)

    def evaluate(self, name: str, only: tuple[str, ...] = ()) -> Any:
        """The value of a variable.

        only: the beginnings of the names of variables that it needs. The lookup `template` copies
        all that there are, which takes longer than the rest of its work.
        """
        if only:
            self._templar.available_variables = {
                each: value for each, value in self._variables.items() if each.startswith(only)
            }
        try:
            return self._templar.template(trust_as_template(f"{{{{ {name} }}}}"))
        finally:
            self._templar.available_variables = self._variables

    def set(self, **facts: Any) -> None:
        """Set facts, as a task of a role would."""
        self._variables.update(facts)
        self._templar.available_variables = self._variables

    def keep(self, *names: str) -> dict[str, Any]:
        """Evaluate variables, and set them to their values: others that use them are faster."""
        found = {name: self.evaluate(name) for name in names}
        self.set(**found)
        return found
