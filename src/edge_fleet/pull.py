"""Hosts that run site.yml on themselves (ansible-pull): which can, and what they need for it.

A host gets its own secrets and none of the fleet's: no vault password, no authority's key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edge_fleet.text import Problem, parse_version

MINIMUM = (3, 11)
"""The oldest Python of the control machine's packages."""
STATE = "/var/lib/edge-llm-pull"
"""The folder on the host with what its runs read and keep; only root reads it."""
SECRETS = ("llm_api_keys", "llm_models_token", "llm_models_proxy")
"""Variables that may be encrypted in the inventory. The host gets their values."""
FILES = {
    "llm_tls_certificate": "certificate.pem",
    "llm_tls_private_key": "key.pem",
    "llm_tls_ca": "ca.pem",
    "llm_models_ca": "models_ca.pem",
}
"""Variables that name a file of the control machine, and the name of its copy on the host."""
_REQUIRED = {
    "board_pull_version": "Name a signed tag or branch of the repository.",
    "board_pull_signers": "Name a file of the control machine with the signers' SSH keys.",
}


def pull(
    variables: Mapping[str, Any], host: str, printed: str, key: str, issued: bool
) -> dict[str, Any]:
    """What a host needs that pulls, or why it cannot.

    variables: its llm_* and board_* variables. printed: the output of `python3 --version` there.
    key: its key for clients. issued: whether the project's authority issues its certificate.
    Returns `problems`; `variables`, the extra variables of its runs; and `files`, the name of each
    copy below STATE/files with the path on the control machine.
    """
    given = {name: value for name, value in variables.items() if value not in (None, "")}
    files = {FILES[name]: given[name] for name in FILES if name in given}
    return {
        "problems": _problems(given, host, printed, issued),
        "variables": {
            # The run is root's, on this host, with the system's Python for modules.
            "ansible_become": False,
            "ansible_connection": "local",
            "ansible_python_interpreter": "/usr/bin/python3",
            # A host does not restart in the middle of its own run.
            "board_reboot": False,
            # In place of folders of the control machine.
            "board_catalogue_dir": "",
            "board_facts_file": f"{STATE}/facts.json",
            "board_secrets_dir": f"{STATE}/secrets",
            "llm_api_key": key,
            **{name: given[name] for name in SECRETS if name in given},
            **{name: f"{STATE}/files/{FILES[name]}" for name in FILES if name in given},
        },
        "files": files,
    }


def _problems(given: Mapping[str, Any], host: str, printed: str, issued: bool) -> list[Problem]:
    problems = [
        f"{host}: {name} is missing. {advice}"
        for name, advice in _REQUIRED.items()
        if name not in given
    ]
    found = re.search(r"^Python (\d+\.\d+[\d.]*)", printed, re.MULTILINE)
    if not found or parse_version(found[1]) < MINIMUM:
        problems.append(
            f"{host}: Python on the host does not fit: python3 is"
            f" {found[1] if found else 'missing'}, and ansible-pull needs"
            f" {'.'.join(map(str, MINIMUM))} or newer. Remove board_pull_repository of the host,"
            " and run site.yml for it from the control machine."
        )
    if issued:
        problems.append(
            f"{host}: llm_tls does not fit: the project's certificate authority issues the"
            " certificate of the host, and its private key must not leave the control machine. Set"
            " llm_tls_certificate and llm_tls_private_key, or remove board_pull_repository of the"
            " host."
        )
    return problems
