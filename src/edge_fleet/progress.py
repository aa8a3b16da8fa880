"""Follows the download of weights, and says how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

SAY_SECONDS = 10.0
_MIB = 1024**2
_ENDED = ("done", "failed", "stopped", "gone")
_WORDS = {
    "begun": "begins",
    "asking": "asks",
    "fetching": "comes",
    "receiving": "comes",
    "verifying": "is verified",
}


class DownloadError(Exception):
    """Why the files are not there; a sentence without its full stop."""


def follow(
    ask: Callable[[], dict[str, Any]], say: Callable[[str], None], where: str
) -> dict[str, Any]:
    """Wait for the end of a download; return the last result of the model_fetch module.

    ask: calls the module, which waits for a while; say: shows a line to the person who waits;
    where: the machine that downloads, as lines name it. Raises DownloadError.
    """
    said = time.monotonic()
    while True:
        result = ask()
        told = result.get("told")
        if result.get("failed") or not told:
            return result
        if told["state"] in _ENDED:
            break
        if time.monotonic() - said > SAY_SECONDS:
            say(progress(where, told))
            said = time.monotonic()
    if told["state"] != "done":
        raise DownloadError(
            told.get("reason")
            or "its download was killed; what has come is kept, and the next run goes on"
        )
    if told.get("from"):
        say(ended(where, told))
    return {**result, "changed": bool(told.get("from"))}


def mib(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / _MIB:,.0f} MiB" if size >= 10 * _MIB else f"{size / _MIB:.1f} MiB"


def progress(host: str, told: Mapping[str, Any]) -> str:
    """A line that says how far a bundle is: percent, bytes, rate, time left, from whom."""
    done, size = told.get("done", 0), told.get("size") or 0
    parts = [f"{host}: {told['name']} {_WORDS.get(told['state'], told['state'])}"]
    if size:
        parts.append(f"{100 * done // size} % of {mib(size)}")
    if told.get("rate") and told["state"] != "verifying":
        parts.append(f"{mib(told['rate'])}/s")
    if told.get("left") is not None and told["state"] != "verifying":
        parts.append(f"{duration(told['left'])} left")
    if told.get("from") and told["state"] in ("fetching", "receiving"):
        parts.append(f"from {' and '.join(told['from'])}")
    return ", ".join(parts)


def ended(host: str, told: Mapping[str, Any]) -> str:
    """The line of a bundle that has come."""
    size, seconds = told.get("size") or 0, told.get("seconds") or 0
    came = f"{host}: {told['name']} is there: {mib(size)} in {duration(seconds)}"
    return came + (f", from {' and '.join(told['from'])}" if told.get("from") else "")


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
