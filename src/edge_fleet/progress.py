"""Follows the download of weights and shows its progress.

The states are those of a program on a host. What a host says is checked before it is used, and
nothing of it reaches the terminal as it is: control characters are commands there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from edge_fleet.text import MOST_TEXT, clean_text
from edge_host.sizes import format_size

LINE_SECONDS = 10.0
STALL_SECONDS = 1800.0
"""Seconds without a further byte, or a further state, after which a download has failed: longer
than any wait of the program on the host, and than the verification of a large file on a slow one.
"""
MOST_RESTARTS = 5
"""How often a download may begin anew, as after a wrong hash, without being taken for stalled."""
LIMIT_SECONDS = 24 * 3600.0
"""Seconds for a download, whatever its progress: the certificates of a distribution expire."""
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
    call_module: Callable[[], dict[str, Any]],
    show: Callable[[str], None],
    machine: str,
    job: Mapping[str, Any],
) -> dict[str, Any]:
    """Wait for the end of a download; return the last result of the model_fetch module.

    call_module: calls the module, which waits for some seconds; show: prints a line; machine: the
    name of the machine that downloads, for the lines; job: the download. Raises DownloadError.
    """
    begun = shown = moved = time.monotonic()
    reached, most, restarts = set[str](), -1, 0
    while True:
        result = call_module()
        if result.get("failed") or not result.get("download"):
            return result
        status = checked_status(result["download"], job)
        if status["state"] in _ENDED:
            break
        now = time.monotonic()
        # States that are unknown are one state, whatever they are called.
        state = status["state"] if status["state"] in _WORDS else "unknown"
        restarted = status["done"] < most and restarts < MOST_RESTARTS
        # Bytes are counted from the beginning in each state.
        if state not in reached or status["done"] > most or restarted:
            restarts += state in reached and restarted
            most = status["done"]
            reached.add(state)
            moved = now
        if now - moved > STALL_SECONDS or now - begun > LIMIT_SECONDS:
            raise DownloadError(
                f"the download did not end: its state is {status['state']!r} at {status['done']}"
                f" bytes since {duration(now - moved)}. Read its messages on the host (journalctl"
                " -u 'edge-llm-fetch*'), and run site.yml again"
            )
        if now - shown > LINE_SECONDS:
            show(progress(machine, status))
            shown = now
    if status["notice"]:
        show(f"{machine}: {status['name']}: {status['notice']}")
    if status["state"] != "done":
        raise DownloadError(
            status["reason"]
            or "the download was killed. Run this again: it goes on from the part that is there"
        )
    if status["sources"]:
        show(ended(machine, status))
    return {**result, "download": status, "changed": bool(status["sources"])}


def checked_status(found: object, job: Mapping[str, Any]) -> dict[str, Any]:
    """The status of a download as a host says, with the values that may be used and printed.

    A value of another type, or out of its bounds, counts as missing; unknown ones are left out. The
    name and the size are those of the job.
    """
    said: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    size = sum(int(file["size"]) for file in job.get("files", ()))
    sources = said.get("sources")
    return {
        "name": str(job["name"]),
        "size": size,
        "state": clean_text(said.get("state"), 40) or "unknown",
        "done": _bounded(said.get("done"), size) or 0,
        "rate": _bounded(said.get("rate"), 1 << 50) or 0,
        "seconds_left": _bounded(said.get("seconds_left"), 1 << 40),
        "seconds": _bounded(said.get("seconds"), 1 << 40) or 0,
        "sources": [clean_text(each, 200) for each in sources[:20]]
        if isinstance(sources, list)
        else [],
        "reason": clean_text(said.get("reason"), MOST_TEXT),
        "notice": clean_text(said.get("notice"), MOST_TEXT),
    }


def _bounded(value: object, most: float) -> Any:
    """A number from 0 to `most`; None for anything else."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most
    return value if fits else None


def progress(host: str, status: Mapping[str, Any]) -> str:
    """The line of a download in progress: percent, bytes, rate, time left, sources."""
    done, size = int(status.get("done", 0)), status.get("size") or 0
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
