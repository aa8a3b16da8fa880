"""How much of a model is in a GPU's memory, by what Ollama's /api/ps says."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

CPUINFO = Path("/proc/cpuinfo")


def gpu_share(size: object, in_vram: object, base_url: str) -> float | None:
    """Return how much of a model is in a GPU's memory, 0 to 1; None where that is not known.

    Ollama counts every buffer as VRAM whose name does not begin with CPU, so it counts the weights
    that llama.cpp keeps in a form of their own for a CPU with AMX: a part of the model, on a
    machine without any GPU. A part counts only for an engine on this machine, which has no AMX.
    """
    whole, part = _count(size), _count(in_vram)
    if not whole or part is None:
        return None
    share = part / whole
    if 0 < share < 1 and (_has_amx() or not _is_here(base_url)):
        return None
    return min(share, 1.0)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _has_amx() -> bool:
    """Whether this machine's CPU has AMX, or cannot be read."""
    try:
        return "amx_tile" in CPUINFO.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return True


def _is_here(base_url: str) -> bool:
    """Whether an engine is on this machine: at a loopback address, or a container beside this one,
    which has a name without a domain.
    """
    host = urlsplit(base_url).hostname or ""
    return host.startswith("127.") or not set(host) & set(".:") or host == "::1"
