"""The gate of GPU offload, for a host that is proven without a change: the definition is the host's
own, which a change asks there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

_SOURCE = Path(__file__).parents[1] / "module_utils" / "edge_llm_gpu.py"


@cache
def _source() -> ModuleType:
    spec = importlib.util.spec_from_file_location("edge_llm_gpu", _SOURCE)
    assert spec is not None and spec.loader is not None  # noqa: S101 - it is a file
    source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    return source


def gpu_problem(
    plan: Mapping[str, Any], log: Mapping[str, Any], report: Mapping[str, Any]
) -> str | None:
    """Why it is not proven that a host's layers are on its GPU; None where it is, or need not be.

    `log` is the engine's (deployment.engine_log of host_state), `report` that of the proof.
    """
    if not plan["gpu"]["required"]:
        return None
    found: str | None = _source().gpu_problem(
        plan["gpu"], plan["provider"], log, report.get("gpu_share")
    )
    return found


class FilterModule:
    """The name under which the verify role reaches it."""

    def filters(self) -> dict[str, Any]:
        return {"edge_llm_gpu_problem": gpu_problem}
