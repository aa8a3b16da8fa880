"""Releases of Jetson Linux (L4T), and the JetPack and CUDA that belong to them."""

from __future__ import annotations

from typing import Any

from edge_fleet.text import parse_version

JETPACKS = {32: "4", 34: "5", 35: "5", 36: "6", 38: "7", 39: "7"}
"""First number of an L4T release -> first number of its JetPack; boards.yml has the releases."""


def l4t_within(l4t: dict[str, Any], bounds: list[str]) -> bool:
    release = (l4t["major"], l4t["minor"])
    return parse_version(bounds[0]) <= release < parse_version(bounds[1])


def l4t_of(l4t: dict[str, Any] | None, boards: dict[str, Any]) -> dict[str, str | None] | None:
    """{"text", "jetpack", "cuda"} of an L4T release; None for a board that has none."""
    if l4t is None:
        return None
    release = parse_version(l4t["text"])
    jetpack = {parse_version(key): value for key, value in boards["jetpack"].items()}
    cuda = {parse_version(key): value for key, value in boards["cuda"].items()}
    same = [key for key in jetpack if key[:2] == release[:2] and key <= release]
    before = [key for key in cuda if key[0] == release[0] and key <= release]
    return {
        "text": l4t["text"],
        "jetpack": jetpack[max(same)] if same else None,
        "cuda": cuda[max(before)] if before else None,
    }
