"""The table of a fleet's status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from edge_fleet.tables import BOARD_WIDTH, layout
from edge_fleet.text import GIB, printable
from edge_host.image_ref import ImageRef

STATUS = (
    "host",
    "board",
    "provider",
    "model",
    "release",
    "age",
    "image",
    "engine",
    "chat API",
    "GPU layers",
    "memory",
    "temp",
    "power mode",
    "W",
    "disk free",
    "certificate",
)


def status_table(hosts: list[dict[str, Any]], now: str) -> str:
    """Lines of text: the problems of the fleet in one line, a heading, and a row for each host with
    its problems and notes below.

    hosts: the result of `fleet_status`; now: RFC 3339.
    """
    time = datetime.fromisoformat(now).astimezone(UTC)
    bad = [str(each["host"]) for each in hosts if not each["ok"]]
    first = f"{len(bad)} of {len(hosts)} hosts have problems: {', '.join(bad)}"
    summary = first if bad else f"{len(hosts)} hosts, no problems"
    return f"{summary}\n{layout([(list(STATUS), ''), *(_row(each, time) for each in hosts)])}"


def _row(host: dict[str, Any], now: datetime) -> tuple[list[str], str]:
    cells = [
        host["host"],
        host["board"] and str(host["board"])[:BOARD_WIDTH],
        host["provider"],
        host["model"],
        host["release"],
        _days(host["released_at"], now, -1),
        host["image"] and ImageRef.parse(host["image"]).short,
        host["engine"],
        host["chat_api"],
        host["gpu_layers"],
        _share(host["memory_used"], host["memory_total"]),
        None if host["temperature"] is None else f"{host['temperature']:.0f} °C",
        host["power_mode"],
        None if host["watts"] is None else f"{host['watts']:.1f}",
        _share(host["disk_free"], host["disk_total"]),
        _days(host["certificate_expires"], now, 1),
    ]
    remarks = [f"PROBLEM: {each}" for each in host["problems"]]
    remarks += [f"note: {each}" for each in host["notes"]]
    return ["-" if each is None else printable(str(each)) for each in cells], "\n".join(remarks)


def _share(part: float | None, whole: float | None) -> str | None:
    if part is None or not whole:
        return None
    return f"{part / GIB:.1f} of {whole / GIB:.1f} GiB"


def _days(moment: str | None, now: datetime, sign: int) -> str | None:
    """How far away a moment is, in the past (sign -1) or the future (1)."""
    if moment is None:
        return None
    hours = sign * (datetime.fromisoformat(moment) - now).total_seconds() / 3600
    return f"{hours / 24:.0f} d" if abs(hours) >= 48 else f"{hours:.0f} h"
