"""Makes a record of what was measured on a host and through its chat API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_fleet.benchmark.record import Engine, Load, Moment, Record, Users, settings_of

_WARM_SECONDS = 1.0
"""Seconds of a level that sensors do not count: they read averages, and clocks differ a little."""

Sample = Mapping[str, Any]


def record_of(measured: Mapping[str, Any], baseline: bool) -> Record:
    """The record of a benchmark, a baseline if it is to be one and may.

    measured: host, at (the time), state (of host_info, read when the release served), bench (of
    `llm-provider bench --json`), readings (of host_sampler; None with readings_problem), engine (of
    engine_benchmark).
    """
    state, bench = measured["state"], measured["bench"]
    release = state["deployment"]["release"]
    plan, board = release["plan"], state["board"]
    readings = measured["readings"] or {"samples": [], "slowdowns": []}
    samples: Sequence[Sample] = readings["samples"]
    record = Record(
        host=measured["host"],
        at=measured["at"],
        board=board["name"] or board["model"] or board["arch"],
        model=plan["model"]["name"],
        quantization=plan["model"].get("quantization") or "",
        provider=plan["provider"],
        image=plan["engine"]["image"],
        release=release.get("number"),
        settings=settings_of(plan),
        power_mode=(board.get("power") or {}).get("mode"),
        load=Load(
            prompt_tokens=bench["prompt_tokens"],
            max_tokens=bench["max_tokens"],
            users=tuple(level["parallel"] for level in bench["levels"]),
        ),
        users=tuple(_users(level, samples) for level in bench["levels"]),
        engine=Engine(**measured["engine"]),
        memory_used=_highest(samples, "memory_used"),
        gpu_memory=_highest(samples, "gpu_memory"),
        watts_of=next((each["watts_of"] for each in samples if each["watts_of"]), None),
        before=_moment(samples[:1]),
        after=_moment(samples[-1:]),
        throttled=_throttled(samples, readings["slowdowns"]),
        sensors_problem=measured.get("readings_problem") or "",
        baseline=False,
    )
    return record.model_copy(update={"baseline": baseline and record.usable})


def _users(level: Mapping[str, Any], samples: Sequence[Sample]) -> Users:
    tally = level["url"]
    during = samples_during(samples, level["begun"], level["ended"])
    watts = _mean(during, "watts")
    seconds, tokens = level["ended"] - level["begun"], tally["tokens"]
    return Users(
        users=level["parallel"],
        requests=tally["requests"],
        failed=tally["failed"],
        failures=tally["failures"],
        seconds=tally["seconds"],
        ttft_ms=tally["ttft_ms"],
        prompt_tokens=tally["prompt_tokens"],
        tokens=tokens,
        prompt_tokens_per_second=tally["prompt_tokens_per_second"],
        tokens_per_second=tally["tokens_per_second"]["all"],
        tokens_per_second_each=tally["tokens_per_second"]["stream"],
        watts=watts,
        joules_per_token=round(watts * seconds / tokens, 3) if watts and tokens else None,
        gpu_percent=_mean(during, "gpu_percent"),
    )


def samples_during(samples: Sequence[Sample], begun: float, ended: float) -> list[Sample]:
    """The samples of a span of time; of a long one, without those of its first moment."""
    within = [each for each in samples if begun <= each["at"] <= ended]
    later = [each for each in within if each["at"] >= begun + _WARM_SECONDS]
    return later or within


def _mean(samples: Sequence[Sample], name: str) -> float | None:
    found = [each[name] for each in samples if each[name] is not None]
    return round(sum(found) / len(found), 2) if found else None


def _highest(samples: Sequence[Sample], name: str) -> int | None:
    return max((each[name] for each in samples if each[name] is not None), default=None)


def _moment(samples: Sequence[Sample]) -> Moment | None:
    return next((Moment(**{k: e[k] for k in ("temperature", "clocks")}) for e in samples), None)


def _throttled(samples: Sequence[Sample], slowdowns: Sequence[str]) -> tuple[str, ...]:
    now = {name for sample in samples for name, holds in sample["throttling"].items() if holds}
    return tuple(sorted(now | set(slowdowns)))
