"""What a command and all processes that it starts take: time, CPU and memory.

CPU is the kernel's account of ended processes (getrusage). So that none escapes it, orphans become
children of this process: an SSH connection that Ansible keeps is one. Memory is the proportional
set size, in which a page that forks share counts once. That of SSH is counted apart: a kept
connection is a process, and hosts that are replayed have none.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36
_LEAST_PAUSE = 0.1
# Reading the memory of many processes takes CPU time from them: of one part of twenty, at most.
_PAUSE_PER_COST = 19.0
_STAND_IN = b"benchmarks/fleet/ssh.py"


@dataclass(frozen=True)
class Usage:
    """A command's exit status and output, wall and CPU seconds, and peaks of memory (MiB): of SSH's
    processes, or of what stands in for them, and of all others."""

    status: int
    output: str
    seconds: float
    cpu: float
    peak: float
    ssh: float


def parents(proc: Path = _PROC) -> dict[int, int]:
    """The parent of every process."""
    found = {}
    for folder in proc.iterdir():
        if folder.name.isdigit():
            # It may have ended meanwhile.
            with suppress(OSError):
                found[int(folder.name)] = int(
                    (folder / "stat").read_text().rpartition(")")[2].split()[1]
                )
    return found


def descendants(root: int, parent_of: Mapping[int, int]) -> list[int]:
    """The children of a process, their children, and so on."""
    children: dict[int, list[int]] = {}
    for pid, parent in parent_of.items():
        children.setdefault(parent, []).append(pid)
    found = list(children.get(root, []))
    for pid in found:
        found += children.get(pid, [])
    return found


def proportional_memory(pids: Iterable[int], proc: Path = _PROC) -> float:
    """MiB of processes, a shared page divided among those that share it."""
    kilobytes = 0
    for pid in pids:
        with suppress(OSError):
            for line in (proc / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kilobytes += int(line.split()[1])
    return kilobytes / 1024


def is_ssh(pid: int, proc: Path = _PROC) -> bool:
    """Whether a process is an SSH client, or stands in for one."""
    with suppress(OSError):
        folder = proc / str(pid)
        if (folder / "comm").read_text().strip() == "ssh":
            return True
        return _STAND_IN in (folder / "cmdline").read_bytes()
    return False


def measured(
    words: Sequence[str | Path], cwd: Path, environment: Mapping[str, str], limit: float = 3600
) -> Usage:
    """Run a command to its end and measure it; what it leaves behind is ended too.

    No other child of this process may run meanwhile. Raises TimeoutError after `limit` seconds.
    """
    _adopt_orphans()
    watch = _Watch()
    with tempfile.TemporaryFile("w+") as output:
        before = _ended_children()
        begun = time.monotonic()
        process = subprocess.Popen(
            words, cwd=cwd, env=environment, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        watch.start()
        try:
            status = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{words[0]} ran for more than {limit:g} s.") from None
        finally:
            seconds = time.monotonic() - begun
            watch.stop()
            _end_children()
            process.wait()
        output.seek(0)
        return Usage(
            status, output.read(), seconds, _ended_children() - before, watch.peak, watch.ssh
        )


class _Watch(threading.Thread):
    """Looks at the memory of all descendants of this process, again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = self.ssh = 0.0
        self._stopped = threading.Event()

    def run(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            begun = time.thread_time()
            found = descendants(os.getpid(), parents())
            ssh = [pid for pid in found if is_ssh(pid)]
            self.ssh = max(self.ssh, proportional_memory(ssh))
            self.peak = max(self.peak, proportional_memory(set(found).difference(ssh)))
            pause = max(_LEAST_PAUSE, _PAUSE_PER_COST * (time.thread_time() - begun))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot adopt orphans")


def _end_children() -> None:
    """Kill all that is left of a command, generation by generation."""
    while left := [pid for pid, parent in parents().items() if parent == os.getpid()]:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _ended_children() -> float:
    """CPU seconds of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
