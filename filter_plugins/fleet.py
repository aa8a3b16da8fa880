"""The table that a person reads at the end of a run: what every host serves, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = (
    "host",
    "board",
    "provider",
    "model",
    "GPU layers",
    "context",
    "slots",
    "start",
    "TTFT",
    "tokens/s",
)
BOARD_WIDTH = 24


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def fleet_row(host: Mapping[str, Any]) -> tuple[list[str], str]:
    """A host's cells, in the order of COLUMNS, and the reply or the reason why there is none.

    `host` is its hostvars after the verify role: board_plan, verify_report and verify_engine_log.
    """
    name = str(host["inventory_hostname"])
    plan = host.get("board_plan")
    if not plan or plan["problems"]:
        reason = "refused: see the message above" if plan else "not reached or not read"
        return [name, *["-"] * (len(COLUMNS) - 1)], reason
    settings = plan["environment"]
    log = host.get("verify_engine_log") or {}
    report = host.get("verify_report") or {}
    offloaded = log.get("layers_offloaded") if log.get("gpu_buffers") else 0
    total = log.get("layers_total")
    cells = [
        name,
        str(plan["board"])[:BOARD_WIDTH],
        str(plan["provider"]),
        str(plan["model"]["name"]),
        f"{offloaded}/{'-' if total is None else total}",
        str(settings["CTX_SIZE"]),
        str(settings["PARALLEL"]),
        _seconds(log.get("start_seconds")),
        _seconds(report.get("ttft_seconds")),
        f"{report['tokens_per_second']:.0f}" if report.get("tokens_per_second") else "-",
    ]
    if not report:
        return cells, "not proven in this run"
    if not report["ok"]:
        return cells, "the proof failed: see the message above"
    return cells, str(report["answer"]).strip()


def fleet_table(hosts: list[Mapping[str, Any]]) -> str:
    """Lines of text: a heading, a row for each host, and its reply below the row."""
    rows = [fleet_row(host) for host in hosts]
    lines = [list(COLUMNS), *[cells for cells, _ in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    texts = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    for index, (_, reply) in enumerate(rows):
        texts[index + 1] += f"\n{' ' * widths[0]}  {reply}"
    return "\n".join(texts)


class FilterModule:
    """The name under which playbooks reach the table."""

    def filters(self) -> dict[str, Any]:
        return {"edge_llm_table": fleet_table}
