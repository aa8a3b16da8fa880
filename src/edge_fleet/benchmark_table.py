"""The table of benchmarks of hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_fleet.tables import layout
from edge_host.sizes import format_mib

BENCHMARK = (
    "host",
    "model",
    "engine",
    "users",
    "TTFT p50",
    "p95",
    "prompt/s",
    "tokens/s",
    "each",
    "W",
    "J/token",
    "GPU",
    "of baseline",
)


def benchmark_table(hosts: list[Mapping[str, Any]]) -> str:
    """Lines of text: a row for each host and number of users, in tokens per second, and below a
    host what else was measured and what its speeds are compared with.

    `hosts` are hostvars with benchmark_result, or with benchmark_failure. A host that has neither
    serves no chat model, or was not reached.
    """
    rows = [(list(BENCHMARK), "")]
    for host in hosts:
        name, result = str(host["inventory_hostname"]), host.get("benchmark_result")
        if not result or host.get("benchmark_failure"):
            reason = str(host.get("benchmark_failure") or _not_measured(host)).splitlines()[0]
            rows.append(([name, *["-"] * (len(BENCHMARK) - 1)], reason))
            continue
        record, last = result["record"], len(result["record"]["users"]) - 1
        for place, level in enumerate(record["users"]):
            users = f"{level['users']} user{'s' if level['users'] != 1 else ''}"
            share = result["shares"].get(f"generation at {users}")
            first = [name, record["model"], record["provider"]] if place == 0 else ["", "", ""]
            cells = [
                *first,
                str(level["users"]),
                _milliseconds(level["ttft_ms"]["p50"]),
                _milliseconds(level["ttft_ms"]["p95"]),
                _number(level["prompt_tokens_per_second"]),
                _number(level["tokens_per_second"]),
                _number(level["tokens_per_second_each"]),
                _number(level["watts"]),
                _number(level["joules_per_token"]),
                _percent(level["gpu_percent"] and level["gpu_percent"] / 100),
                _percent(share),
            ]
            rows.append((cells, "\n".join(benchmark_notes(result)) if place == last else ""))
    return layout(rows)


def _not_measured(host: Mapping[str, Any]) -> str:
    read = host.get("benchmark_read") or {}
    release = ((read.get("state") or {}).get("deployment") or {}).get("release") or {}
    task = ((release.get("plan") or {}).get("model") or {}).get("task")
    if task and task != "chat":
        return f"not measured: it serves a model for {task}, and only chat models generate tokens"
    return "not reached or not measured: see the message above"


def benchmark_notes(result: Mapping[str, Any]) -> list[str]:
    """What a benchmark found besides the speeds of its users, a line each."""
    record = result["record"]
    lines = [*_engine_notes(result), *_board_notes(record)]
    if record["throttled"]:
        lines.append(f"throttled: {', '.join(record['throttled'])}; never used as a baseline")
    if (baseline := result["baseline"]) is not None:
        lines.append(f"baseline: {baseline['at']}, {baseline['provider']}, {baseline['image']}")
    elif record["baseline"]:
        lines.append("baseline: this result, the first of this host, model and load")
    else:
        lines.append("baseline: none")
    for each in result["published"]:
        shares = [
            f"{words} {_percent(each[f'{kind}_share'])} of {each[kind]:g}"
            for kind, words in (("generation", "each"), ("prompt", "prompt/s"))
            if each[f"{kind}_share"]
        ]
        board = " ".join(filter(None, (each["board"], each["variant"])))
        found = ", ".join(shares) or "not measured"
        lines.append(f"published: {board}, {each['engine']}: {found} ({each['source']})")
    if result["problem"]:
        lines.append("the gate is not passed: see the message below")
    return lines


def _engine_notes(result: Mapping[str, Any]) -> list[str]:
    engine, lines = result["record"]["engine"], []
    for kind, words in (("llama_bench", "llama-bench"), ("asked", "engine asked on the host")):
        figures = engine[kind]
        if figures is None:
            lines.append(f"{words}: not available: {engine[f'{kind}_problem'] or 'not measured'}")
            continue
        line = (
            f"{words}: prompt/s {_number(figures['prompt_tokens_per_second'])},"
            f" each {_number(figures['tokens_per_second'])}"
        )
        if kind == "asked" and result["api_share"]:
            line += f"; the chat API reaches {result['api_share']:.1%} of it"
        lines.append(line)
    return lines


def _board_notes(record: Mapping[str, Any]) -> list[str]:
    if record["sensors_problem"]:
        return [f"sensors: not available: {record['sensors_problem']}"]
    used = record["memory_used"]
    memory = "-" if used is None else format_mib(used)
    if record["gpu_memory"] is not None:
        memory += f", of cards {format_mib(record['gpu_memory'])}"
    moments = [record["before"] or {}, record["after"] or {}]
    heat = [_number(each.get("temperature")) for each in moments]
    clocks = [
        ", ".join(f"{name} {mhz}" for name, mhz in each.get("clocks", {}).items()) or "-"
        for each in moments
    ]
    return [
        f"memory {memory}; power of {record['watts_of'] or 'nothing: not available'}",
        f"before and after: {heat[0]} and {heat[1]} degrees; MHz {clocks[0]} and {clocks[1]}",
    ]


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
