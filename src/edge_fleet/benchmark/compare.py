"""Compares a result with the host's baseline and with published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_fleet.benchmark.published import Figure
from edge_fleet.benchmark.record import Record

_ROLL_BACK = (
    "Find the cause (docs/benchmarks-of-hosts.md), or roll back with playbooks/rollback.yml. If the"
    " new speed is the one to expect, make it the baseline: make benchmark BASELINE=new"
)


def baseline_of(record: Record, earlier: Sequence[Record]) -> Record | None:
    """The last of the earlier results that is a baseline and measures the same; None for none."""
    found = [each for each in earlier if each.baseline and record.measures_as(each)]
    return max(found, key=lambda each: each.at, default=None)


def shares(record: Record, baseline: Record) -> dict[str, float]:
    """Each of the baseline's speeds -> the share of it that a result reaches."""
    mine = record.figures()
    return {
        name: (mine.get(name) or 0.0) / speed for name, speed in baseline.figures().items() if speed
    }


def gate_problem(record: Record, baseline: Record | None, gate: float | None) -> str:
    """Why a result does not pass the gate, a message; empty where it does, or there is no gate.

    Without a baseline only failed requests do not pass.
    """
    if gate is None:
        return ""
    if record.failed:
        words = next(each for level in record.users for each in level.failures)
        return (
            f"{record.host}: the benchmark failed: {record.failed} requests of"
            f" {sum(level.requests for level in record.users)} were not answered: {words}"
        )
    if baseline is None:
        return ""
    reached = shares(record, baseline)
    slow = {name: share for name, share in reached.items() if share < gate}
    if not slow:
        return ""
    now, before = record.figures(), baseline.figures()
    listed = "; ".join(
        f"{name}: {now.get(name) or 0:.4g} of {before[name]:.4g} tokens/s, {share:.0%}"
        for name, share in slow.items()
    )
    slowed = f" The board was throttled: {', '.join(record.throttled)}." if record.throttled else ""
    return (
        f"{record.host}: the speed does not fit: llm_benchmark_gate requires {gate:.0%} of the"
        f" baseline of {baseline.at}, and the host reaches less: {listed}.{slowed} {_ROLL_BACK}."
    )


def published_of(record: Record, figures: Sequence[Figure]) -> list[Mapping[str, Any]]:
    """The published figures for the board and the model, with the share that a result reaches.

    Published are speeds of one user; what is not measured, or not published, has no share.
    """
    speeds = [each for each in record.users if each.users == 1]
    generation = next((each.tokens_per_second_each for each in speeds), None)
    prompt = next((each.prompt_tokens_per_second for each in speeds), None)
    return [
        {
            **figure.model_dump(mode="json"),
            "generation_share": _share(generation, figure.generation),
            "prompt_share": _share(prompt, figure.prompt),
        }
        for figure in figures
        if (figure.board, figure.model, figure.quantization)
        == (record.board, record.model, record.quantization)
    ]


def _share(mine: float | None, theirs: float | None) -> float | None:
    return mine / theirs if mine and theirs else None
