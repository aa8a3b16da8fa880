"""Classes of CPUs that one machine can stand for: llama.cpp's better backends are hidden from it.

llama.cpp has a shared library for each class of CPUs, and loads the best that the CPU can run.
"""

from __future__ import annotations

import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from edge_fleet.plan.repacking import AVX2, DOTPROD
from edge_host.host_info.hardware import parse_cpu_features
from sandbox import cpu, docker

BACKENDS = f"/usr/lib/{platform.machine()}-linux-gnu/ggml/backends0"
"""Where the sandbox's images have the libraries."""


@dataclass(frozen=True)
class CpuClass:
    """A class of CPUs: the features that decide how weights are kept, and the one library that is
    left for it; None for all of them.
    """

    name: str
    features: frozenset[str]
    library: str | None = None

    def volumes(self, image: str, folder: Path) -> list[str]:
        """The volumes that hide the other libraries of an image; `folder` keeps what is left."""
        if self.library is None:
            return []
        kept = folder / image.replace("/", "-").replace(":", "-") / self.name
        if not kept.exists():
            shutil.rmtree(fresh := kept.with_suffix(".partial"), ignore_errors=True)
            fresh.mkdir(parents=True)
            made = docker.docker("create", image)
            try:
                docker.docker("cp", f"{made}:{BACKENDS}/{self.library}", str(fresh))
            finally:
                docker.docker("rm", "--volumes", made)
            fresh.rename(kept)
        return [f"--volume={kept.resolve()}:{BACKENDS}:ro"]


def this_machine() -> CpuClass:
    """The machine as it is, without what SANDBOX_CPU hides."""
    found = parse_cpu_features(Path("/proc/cpuinfo").read_text(encoding="utf-8")) or []
    hides = cpu.hidden()
    left = [each for each in found if hides is None or not re.fullmatch(hides.features, each)]
    return CpuClass("best", frozenset(left))


_HIDDEN = {
    "x86_64": (
        CpuClass("haswell", AVX2, "libggml-cpu-haswell.so"),
        CpuClass("sse42", frozenset(), "libggml-cpu-sse42.so"),
    ),
    "aarch64": (
        CpuClass("dotprod", DOTPROD, "libggml-cpu-armv8.2_1.so"),
        CpuClass("armv8.0", frozenset(), "libggml-cpu-armv8.0_1.so"),
    ),
}


def classes() -> list[CpuClass]:
    """The machine as it is, which may have AMX, and the classes that it can stand for besides."""
    best = this_machine()
    if cpu.hidden() is not None:
        return [best]  # its libraries are all that the images have
    hidden = _HIDDEN[platform.machine()]
    return [best, *(each for each in hidden if each.features < best.features)]
