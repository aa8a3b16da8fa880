"""Follows the download of weights and shows its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from edge_host.sizes import format_size

LINE_SECONDS = 10.0
_ENDED = ("done", "failed", "stopped", "gone")
_WORDS = {
    "begun": "starting",
    "asking": "checking the source",
    "fetching": "downloading",
    "receiving": "downloading",
    "verifying": "verifying",
}


class DownloadError(Exception):
    """Why the files are missing; a sentence without its full stop."""


def follow(
    call_module: Callable[[], dict[str, Any]], show: Callable[[str], None], machine: str
) -> dict[str, Any]:
    """Wait for the end of a download; return the last result of the model_fetch module.

    call_module: calls the module, which waits for some seconds; show: prints a line;
    machine: the name of the machine that downloads, for the lines. Raises DownloadError.
    """
    shown = time.monotonic()
    while True:
        result = call_module()
        status = result.get("download")
        if result.get("failed") or not status:
            return result
        if status["state"] in _ENDED:
            break
        if time.monotonic() - shown > LINE_SECONDS:
            show(progress(machine, status))
            shown = time.monotonic()
    if status["state"] != "done":
        raise DownloadError(
            status.get("reason")
            or "the download was killed. Run this again: it goes on from the part that is there"
        )
    if status.get("sources"):
        show(ended(machine, status))
    return {**result, "changed": bool(status.get("sources"))}


def progress(host: str, status: Mapping[str, Any]) -> str:
    """The line of a download in progress: percent, bytes, rate, time left, sources."""
    done, size = status.get("done", 0), status.get("size") or 0
    parts = [f"{host}: {status['name']}: {_WORDS.get(status['state'], status['state'])}"]
    if size:
        parts.append(f"{100 * done // size} % of {format_size(size)}")
    if status.get("rate") and status["state"] != "verifying":
        parts.append(f"{format_size(status['rate'])}/s")
    if status.get("seconds_left") is not None and status["state"] != "verifying":
        parts.append(f"{duration(status['seconds_left'])} left")
    if status.get("sources") and status["state"] in ("fetching", "receiving"):
        parts.append(f"from {' and '.join(status['sources'])}")
    return ", ".join(parts)


def ended(host: str, status: Mapping[str, Any]) -> str:
    """The line of a complete download."""
    size, seconds = status.get("size") or 0, status.get("seconds") or 0
    line = f"{host}: {status['name']}: downloaded {format_size(size)} in {duration(seconds)}"
    return line + (f", from {' and '.join(status['sources'])}" if status.get("sources") else "")


def duration(seconds: float) -> str:
    """Return a duration as text in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
