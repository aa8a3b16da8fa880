"""Which images the registry on one host keeps for the others, and who pulls them from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Hosts = Mapping[str, Mapping[str, Any]]


def cached_images(hosts: Hosts, names: Sequence[str], cache: str | None) -> list[dict[str, str]]:
    """The images that the registry on the host `cache` must have, since hosts lack them: reference
    (as hosts pull it) and outside of each.
    """
    found: dict[str, str] = {}
    for name in names:
        found |= _missing(hosts[name], cache)
    return [{"reference": reference, "outside": outside} for reference, outside in found.items()]


def registry_clients(hosts: Hosts, names: Sequence[str], cache: str) -> list[str]:
    """The addresses of the hosts that pull images from the registry on the host `cache`.

    They are the inventory's: what a host says of itself does not count.
    """
    return [
        str(hosts[name].get("board_address") or hosts[name].get("ansible_host") or name)
        for name in names
        if _missing(hosts[name], cache)
    ]


def _missing(host: Mapping[str, Any], cache: str | None) -> dict[str, str]:
    """The images of a host's plan that the host lacks: reference -> outside."""
    plan = host.get("preflight_plan")
    if not plan or plan["problems"] or plan["images"]["cache"] != cache:
        return {}
    deployment = host["preflight_state"]["deployment"]
    installed = set(deployment["images"])
    # The base of the chat API's image has served its purpose once that is built, and may be gone.
    bundle = host.get("stack_bundle")
    if deployment["release"] and (bundle is None or bundle["image"] in installed):
        installed.add(deployment["release"]["plan"]["api"]["base_image"])
    return {
        reference: outside
        for reference, outside in plan["images"]["outside"].items()
        if reference not in installed
    }
