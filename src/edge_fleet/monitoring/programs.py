"""The programs of the monitoring: their images, and whether the host can run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_fleet.plan.image import pinned
from edge_fleet.text import Problem, join_names
from edge_host.constants import MIB
from edge_host.image_ref import is_pinned
from edge_host.sizes import format_size

Hosts = Mapping[str, Mapping[str, Any]]
GROUP = "monitoring"
"""The inventory group."""


def monitoring_images(catalogues: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, str]:
    """The images by digest, by their names in engines.yml; without those that have no digest.

    catalogues: engines.yml's content, with others; own: images of the operator's, in their place.
    """
    rows: Mapping[str, Mapping[str, Any]] = catalogues.get("monitoring") or {}
    found = {name: pinned(dict(row)) for name, row in rows.items() if row.get("digest")}
    return found | {name: str(image) for name, image in own.items() if is_pinned(str(image))}


def monitoring_problem(hosts: Hosts, group: Sequence[str], megabytes: int) -> Problem:
    """Why the fleet cannot be monitored as the inventory says; empty where it can.

    group: the hosts of the inventory group; megabytes: the memory that the programs may take.
    """
    if len(group) != 1:
        return (
            f"The inventory group {GROUP} is invalid: it has {len(group)} hosts"
            f" ({join_names(sorted(group))}). Keep one of them in it."
        )
    name = group[0]
    host = hosts[name]
    needed = int(host["preflight_plan"]["memory"]["total"]) + megabytes * MIB
    total = host["preflight_state"]["board"]["memory_total"]
    if total is not None and needed > total:
        return (
            f"{name} does not fit: the model and the monitoring need {format_size(needed)} of"
            f" memory, and the board has {format_size(total)}. Put another host into the inventory"
            f" group {GROUP}, choose a smaller model, or lower monitoring_memory."
        )
    return ""
