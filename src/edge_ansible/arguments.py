"""Options of the roles that an inventory sets, checked by the roles' argument specifications.

Ansible checks them in a task of each role on each host. A host that leaves the run before these
tasks has them checked here, for all roles at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader

from edge_ansible.roles import find_role

ROLES = ("preflight", "tuning", "docker", "registry", "weights", "stack", "verify")
"""Those of site.yml."""

Options = Mapping[str, Mapping[str, Any]]


def load_options(loader: DataLoader, folders: Iterable[str]) -> dict[str, Any]:
    """The options of all roles, by their names, as the argument specifications have them."""
    places, options = list(folders), dict[str, Any]()
    for role in ROLES:
        file = find_role(places, role) / "meta/argument_specs.yml"
        options |= loader.load_from_file(str(file))["argument_specs"]["main"]["options"]
    return options


def invalid_options(options: Options, given: Mapping[str, Any]) -> list[str]:
    """The names of options whose values do not fit; a message could have a key in it.

    given: the values that are set, by the names of options.
    """
    return [name for name, value in given.items() if not _fits(name, options[name], value)]


def _fits(name: str, option: Mapping[str, Any], value: Any) -> bool:
    result = ArgumentSpecValidator({name: option}).validate(
        {name: value}, validate_role_argument_spec=True
    )
    return not result.error_messages
