"""Judges what the verification of a host found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_host.gpu_offload import gpu_problem


def unverified_gpu(
    plan: Mapping[str, Any], log: Mapping[str, Any], report: Mapping[str, Any]
) -> str | None:
    """Why the layers of a host's engine are not verified to be on its GPU.

    None where they are, or where the plan does not require a GPU. `log` is the engine's
    (deployment.engine_log of host_info); `report` is that of `llm-provider check --json`, whose
    figure gpu_share comes from the chat API.
    """
    if not plan["gpu"]["required"]:
        return None
    return gpu_problem(plan["gpu"], plan["provider"], log, report.get("gpu_share"))


_SHOWN = 5
"""How many problems of suites a message has."""


def failed_suites(report: Mapping[str, Any]) -> str:
    """Why a host fails its test suites, from the report of `llm-suite --json`; empty where it
    passes.
    """
    parts, problems = [], []
    for suite in report["suites"]:
        failed = [each for each in suite["conversations"] if not each["ok"]]
        if failed:
            parts.append(f"{len(failed)} of {len(suite['conversations'])} of {suite['name']}")
        for each in failed:
            problems += [f"{suite['name']}, {each['name']}: {text}" for text in each["problems"]]
    if not parts:
        return ""
    more = len(problems) - _SHOWN
    rest = f"\nand {more} more" if more > 0 else ""
    return "\n".join([f"conversations failed: {', '.join(parts)}", *problems[:_SHOWN]]) + rest
