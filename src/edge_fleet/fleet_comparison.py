"""Which hosts of a run have nothing to do, and which go through the rest of the play.

Pure functions, over what a host has and what is planned for it. What each role does on a host
follows from the functions that the roles themselves use: a role that would do something is a
difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edge_fleet.drift import (
    access_drift,
    docker_in_place,
    installation_drift,
    keys_in_place,
    release_differences,
    weights_in_place,
)
from edge_fleet.image_distribution import cached_images
from edge_fleet.weight_distribution import fetch_jobs

IN_PLACE = "in place"
DIFFERS = "differs"
NEEDED = "needed"
"""In place, but other hosts of the run get weights or images from it."""
UNREAD = "not read"
UNREACHABLE = "unreachable"
EVERYBODY, NOBODY = "all", "all:!all"
"""Patterns. Ansible warns of a name that it does not know, and of an empty pattern."""
ORDINARY = (DIFFERS, NEEDED, UNREAD)
"""States of hosts that go through all plays."""


def differences(
    host: Mapping[str, Any], files: Mapping[str, str], control_changes: Sequence[str]
) -> list[str]:
    """What the roles would do on a host, each in some words; empty where nothing is left to do.

    host: preflight_state, preflight_plan, preflight_tls and stack_bundle, as hostvars have them;
    files: the release's files as rendered; control_changes: files of the control machine that
    would be written.
    """
    state, plan = host["preflight_state"], host["preflight_plan"]
    if plan["problems"]:
        return ["the plan is refused"]
    issues = plan["known_issues"]
    image = host["stack_bundle"]["image"]
    found = {
        "known issues are to be fixed": bool(issues["fixes"])
        or bool(issues["reboot"] and issues["may_reboot"]),
        "Docker is not as planned": not docker_in_place(state, plan),
        "a registry of an earlier version runs": state["docker"]["published_registry"],
        "images are missing": bool(
            cached_images({plan["host"]: host}, [plan["host"]], plan["images"]["cache"])
        ),
        "weights are missing or to be removed": not plan["model"]["present"]
        or not weights_in_place(state, plan),
        "the keys are not as planned": not keys_in_place(state),
        "the certificate is to be issued": bool(host["preflight_tls"]["issue"]),
    }
    access, drift = access_drift(state), installation_drift(state)
    return [
        *(reason for reason, differs in found.items() if differs),
        *release_differences(state, plan, image, dict(files)),
        *([f"owner, group or mode differ: {', '.join(access)}"] if access else []),
        *([f"not as this version installs them: {', '.join(drift)}"] if drift else []),
        *(f"on the control machine, {each}" for each in control_changes),
    ]


def needed_hosts(
    hosts: Mapping[str, Mapping[str, Any]], states: Mapping[str, str], settings: Mapping[str, Any]
) -> set[str]:
    """Hosts in place from which others of the run get weights or images.

    hosts: preflight_plan and preflight_state of those that were read, with llm_models_token, _proxy
    and _ca of the inventory; states: of all hosts of the run; settings: llm_models_cache and
    llm_images_cache of each.
    """
    in_place = [name for name, state in states.items() if state == IN_PLACE]
    others = [name for name, state in states.items() if state in ORDINARY]
    if not others:
        return set()
    found: set[str] = set()
    for name in others:
        found |= {str(value) for value in settings.get(name, {}).values()}
    planned = [name for name in states if not _refused(hosts.get(name, {}))]
    found |= set(fetch_jobs(hosts, planned)["fetcher"].values())
    if UNREAD in states.values():
        # What such a host needs is not known yet: one host for each set of weights comes along.
        found |= set(_first_of_each(hosts, in_place))
    return found & set(in_place)


def _refused(host: Mapping[str, Any]) -> bool:
    plan = host.get("preflight_plan")
    return not plan or bool(plan["problems"])


def _first_of_each(hosts: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    bundles: dict[str, str] = {}
    for name in names:
        bundles.setdefault(str(hosts[name]["preflight_plan"]["model"]["bundle"]), name)
    return list(bundles.values())


def remaining(hosts: Mapping[str, Mapping[str, Any]]) -> str:
    """The hosts that go through all plays, as a pattern; all where nobody was compared.

    One that is in place is among them, where there is one, and leaves the play at once: Ansible
    ends a run, and its report, where all hosts of a play fail. `hosts` is hostvars, after the
    action fleet_state, whose result every host of the run has as `fleet_states`.
    """
    names = remaining_names(hosts)
    if names is None:
        return EVERYBODY
    states = fleet_states(hosts) or {}
    in_place = [name for name, each in states.items() if each["state"] == IN_PLACE]
    return ",".join(names + in_place[:1]) if names else NOBODY


def remaining_names(hosts: Mapping[str, Mapping[str, Any]]) -> list[str] | None:
    """The hosts that go through all plays; None where nobody was compared."""
    states = fleet_states(hosts)
    if states is None:
        return None
    return [name for name, each in states.items() if each["state"] in ORDINARY]


def fleet_states(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The state of each host of the run; None where the action did not run."""
    for host in hosts.values():
        result = host.get("fleet_states")
        if result and "hosts" in result:
            states: dict[str, Any] = result["hosts"]
            return states
    return None
