"""What would fit a host where the planned model does not."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from edge_fleet.plan.memory import MemoryEstimate, repacking
from edge_fleet.plan.task import CHAT
from edge_fleet.plan.types import EngineOptions

Works = Callable[[dict[str, object]], bool]
"""Whether a plan with these settings changed has no problem that it has not without."""
SMALLEST_CONTEXT = 256


def _fits(
    estimate: MemoryEstimate,
    available: int,
    options: EngineOptions,
    others: dict[str, MemoryEstimate],
    works: Works,
) -> list[str]:
    """Changes of one setting by which a model would fit, as they would stand in the inventory; only
    those that lead to no other problem.
    """

    def total(of: MemoryEstimate, **changed: Any) -> int:
        return of.of(options.with_settings(changed)).total

    changes: list[dict[str, object]] = []
    size = options.context_size // SMALLEST_CONTEXT * SMALLEST_CONTEXT
    while size >= SMALLEST_CONTEXT and total(estimate, llm_context_size=size) > available:
        size -= SMALLEST_CONTEXT
    if size >= SMALLEST_CONTEXT:
        changes.append({"llm_context_size": size})
    if options.cache_type == "f16" and total(estimate, llm_cache_type="q8_0") <= available:
        changes.append({"llm_cache_type": "q8_0"})
    found = [each for each in changes if works(each)]
    # The largest of those that fit is nearest to the request.
    totals = {name: total(of) for name, of in others.items()}
    for name in sorted(totals, key=lambda name: totals[name], reverse=True):
        if totals[name] <= available and works({"llm_model": name}):
            found.append({"llm_model": name})
            break
    return [f"{name}: {value}" for change in found for name, value in change.items()]


def what_fits(
    estimate: MemoryEstimate,
    board: dict[str, Any],
    options: EngineOptions,
    others: dict[str, MemoryEstimate],
    works: Works,
) -> str:
    """The rest of the message about memory: what would fit instead."""
    fitting = _fits(estimate, board["memory_total"], options, others, works)
    if fitting:
        return f" One of these would fit: {'; '.join(fitting)}."
    return " No model of models.yml would fit with these settings."


def other_models(
    catalogue: dict[str, Any],
    engine: dict[str, Any],
    gpu: bool,
    features: Collection[str],
    task: str,
) -> dict[str, MemoryEstimate]:
    """The memory estimate of each locked, public model for a task that the engine could serve."""
    kind = engine["weights"]
    found = {}
    for name, entry in catalogue.items():
        files = entry.get(kind, {}).get("files", [])
        if (
            entry.get("public", True)
            and entry.get("task", CHAT) == task
            and files
            and all(file.get("size") and file.get("sha256") for file in files)
        ):
            size = sum(file["size"] for file in files)
            more = repacking(entry, engine, features)
            family, whole = entry[kind]["family"], task != CHAT
            found[name] = MemoryEstimate(
                entry["shape"], size, engine, gpu, more, family=family, whole=whole
            )
    return found
