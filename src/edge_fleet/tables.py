"""The tables of the playbooks: what every host serves, its plan, and its last changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_fleet.text import MOST_TEXT, clean_text
from edge_host.image_ref import ImageRef
from edge_host.sizes import format_mib

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
MOST_LINE = 10_000
"""Characters of a line below a row, which may name many hosts."""


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def fleet_row(host: Mapping[str, Any]) -> tuple[list[str], str]:
    """A host's cells, in the order of COLUMNS; the reply, or the reason why there is none, and the
    notices about the host.

    `host` is its hostvars after the verify role: preflight_plan, preflight_key_notices,
    verify_report, verify_engine_log and the outcome of a change: stack_change, or rollout_failure,
    or rollout_held_back.
    """
    cells, reply = _row(host)
    plan = host.get("preflight_plan") or {"problems": [True]}
    notices = [] if plan["problems"] else plan["known_issues"]["notices"]
    notices = [*notices, *host.get("preflight_key_notices", [])]
    return cells, "\n".join([reply, *_notes(notices)])


def _notes(notices: list[str]) -> list[str]:
    return [f"note: {notice}" for notice in notices]


def _row(host: Mapping[str, Any]) -> tuple[list[str], str]:
    name = str(host["inventory_hostname"])
    plan = host.get("preflight_plan")
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
    if failure := host.get("rollout_failure"):
        return _former(host, cells), f"not changed over: {str(failure).splitlines()[0]}"
    if first := host.get("rollout_held_back"):
        return _former(host, cells), f"held back, since {first} failed"
    if not report:
        return cells, "not verified in this run"
    if not report["ok"]:
        return cells, "the verification failed: see the message above"
    reply = str(report["answer"]).strip()
    if result := (host.get("stack_change") or {}).get("result"):
        reply += f"\n{change_line(result)}"
    return cells, reply


def _former(host: Mapping[str, Any], cells: list[str]) -> list[str]:
    """The cells of a host that goes on with the release before, as far as that is known."""
    release = host["preflight_state"]["deployment"]["release"]
    provider, model = "-", "-"
    if release:
        provider, model = release["plan"]["provider"], release["plan"]["model"]["name"]
    return [*cells[:2], provider, model, *["-"] * (len(COLUMNS) - 4)]


def change_line(result: Mapping[str, Any]) -> str:
    """The release, the duration and the pause of a change, in one line."""
    repeated = f" (as release {result['rolled_back_to']})" if result.get("rolled_back_to") else ""
    line = f"release {result['to']}{repeated} in {result['seconds']:.1f} s"
    if result["from"] is None or not result["changed_parts"]:
        return line
    line += f"; clients waited {result['pause_seconds']:.2f} s"
    if "engine" in result["changed_parts"] and not result["side_by_side"]:
        line += ", one engine after the other"
    return line


def fleet_table(hosts: list[Mapping[str, Any]]) -> str:
    """Lines of text: a heading, a row for each host, and its reply below the row."""
    rows = [fleet_row(host) for host in hosts]
    return _layout([(list(COLUMNS), ""), *rows])


def _layout(rows: list[tuple[list[str], str]]) -> str:
    """Lines of text: each row's cells in columns, and below the row its remark.

    Nothing of a host reaches the terminal as it is: control characters are commands there.
    """
    rows = [
        (
            [clean_text(cell, MOST_TEXT) for cell in cells],
            "\n".join(clean_text(line, MOST_LINE) for line in remark.splitlines()),
        )
        for cells, remark in rows
    ]
    widths = [max(map(len, column)) for column in zip(*(cells for cells, _ in rows), strict=True)]
    texts = []
    for cells, remark in rows:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        texts.append("  ".join(padded).rstrip())
        texts += [f"{' ' * widths[0]}  {line}" for line in remark.splitlines()]
    return "\n".join(texts)


PLAN = (
    "host",
    "board",
    "L4T",
    "JetPack",
    "provider",
    "model",
    "context",
    "slots",
    "cache",
    "threads",
    "GPU layers",
    "memory",
    "of",
    "image",
)


def plan_table(hosts: list[Mapping[str, Any]]) -> str:
    """Lines of text: a heading, a row for each host's plan, and below it its fixes and notices, or
    why there is no plan.

    `hosts` are hostvars with preflight_state and preflight_plan. `memory` is what serving takes,
    `of` what the board has.
    """
    rows = [(list(PLAN), "")]
    for host in hosts:
        name, plan = str(host["inventory_hostname"]), host.get("preflight_plan")
        if not plan:
            rows.append(([name, *["-"] * (len(PLAN) - 1)], "no facts: run site.yml --check"))
            continue
        board = host["preflight_state"]["board"]
        shown = str(board["model"] or board["kind"])[:BOARD_WIDTH]
        if plan["problems"]:
            reasons = "\n".join(str(each).removeprefix(f"{name}: ") for each in plan["problems"])
            rows.append(([name, shown, *["-"] * (len(PLAN) - 2)], reasons))
            continue
        settings, l4t = plan["environment"], plan["l4t"] or {}
        cells = [
            name,
            shown,
            str(l4t.get("text") or "-"),
            str(l4t.get("jetpack") or "-"),
            str(plan["provider"]),
            str(plan["model"]["name"]),
            str(settings["CTX_SIZE"]),
            str(settings["PARALLEL"]),
            str(settings["CACHE_TYPE"]),
            str(settings["THREADS"]),
            str(settings["N_GPU_LAYERS"]),
            format_mib(plan["memory"]["total"]),
            format_mib(board["memory_total"]),
            ImageRef.parse(plan["engine"]["image"]).short,
        ]
        rows.append((cells, "\n".join(issue_lines(plan["known_issues"]))))
    return _layout(rows)


def issue_lines(issues: Mapping[str, Any]) -> list[str]:
    """The fixes that a host needs, and the notices about it, a line each."""
    lines = [f"to be fixed: {FIXES[name]}" for name in issues["fixes"] if name in FIXES]
    if issues["reboot"] and issues["may_reboot"]:
        lines.append(f"to be rebooted for {' and '.join(issues['reboot'])}")
    return lines + _notes(issues["notices"])


FIXES = {
    "memory_cgroup": "the kernel's memory cgroup, in its command line",
    "power_mode": "the power mode",
    "clocks": "the clocks",
    "fan": "the fan's profile",
    "zram": "compressed swap, off",
}
HISTORY = (
    "host",
    "when",
    "release",
    "provider",
    "model",
    "changed",
    "in",
    "waited",
    "outcome",
    "by",
)


def history_table(hosts: list[Mapping[str, Any]]) -> str:
    """Lines of text: a heading, and a row for each of the hosts' last changes, the newest last.

    `hosts` are hostvars with history_read, the result of host_info. The column `waited` is the time
    for which clients waited.
    """
    rows = [(list(HISTORY), "")]
    for host in hosts:
        name = str(host["inventory_hostname"])
        changes = host["history_read"]["state"]["deployment"]["history"]
        rows += [] if changes else [([name, *["-"] * (len(HISTORY) - 2), "nothing yet"], "")]
        for each in changes:
            number = "-" if each.get("to") is None else str(each["to"])
            if each.get("rolled_back_to"):
                number += f" (as release {each['rolled_back_to']})"
            cells = [
                name,
                str(each.get("at") or "-"),
                number,
                str(each.get("provider") or "-"),
                str(each.get("model") or "-"),
                ", ".join(each.get("changed_parts") or []) or "-",
                _seconds(each.get("seconds")),
                _seconds(each.get("pause_seconds")),
                str(each.get("outcome") or "-"),
                str(each.get("operator") or "-"),
            ]
            reason = str(each.get("reason") or "").partition("\n")[0]
            rows.append((cells, reason))
    return _layout(rows)


AUDIT = ("result", "CIS", "check")
_RESULTS = ("failed", "note", "passed")


def audit_table(hosts: list[Mapping[str, Any]]) -> str:
    """Lines of text: failed checks first, then notes, then passed ones; below each the hosts, what
    was found and what to do.

    `hosts` are hostvars with audit_findings. Hosts of which the same was found share a row.
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    fields = ("status", "cis", "check", "found", "advice")
    for host in hosts:
        for each in host.get("audit_findings") or []:
            rows.setdefault(tuple(each[name] for name in fields), []).append(
                str(host["inventory_hostname"])
            )
    unread = [str(each["inventory_hostname"]) for each in hosts if not each.get("audit_findings")]
    lines = [(list(AUDIT), "")]
    if unread:
        cells = ["failed", "-", "The host can be read"]
        lines.append(
            (cells, f"{', '.join(unread)}: not reached or not read: see the message above")
        )
    for row, names in sorted(rows.items(), key=lambda each: _RESULTS.index(each[0][0])):
        status, cis, check, found, advice = row
        remark = "\n".join(text for text in (", ".join(names) + f": {found}", advice) if text)
        lines.append(([status, cis or "-", check], remark if found else ", ".join(names)))
    return _layout(lines)
