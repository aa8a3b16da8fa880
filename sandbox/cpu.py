"""CPU features that the sandbox hides from boards and engines, as SANDBOX_CPU asks for.

llama.cpp has a shared library for each class of CPUs and loads the best one that the CPU can run.
With the better ones removed from its image, and their features from /proc/cpuinfo of the boards,
one machine stands for older ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.errors import SandboxError

_VARIABLE = "SANDBOX_CPU"


@dataclass(frozen=True)
class Hidden:
    """A class of CPUs: the one library that is left, and what is no feature of it.

    `features` is an extended regular expression of words of /proc/cpuinfo.
    """

    library: str
    features: str

    @property
    def recipe(self) -> str:
        """The line of a Dockerfile that removes the other libraries."""
        others = f"-name 'libggml-cpu-*' ! -name {self.library}"
        return f"RUN find /usr/lib -path '*/ggml/backends*' {others} -delete\n"


_AVX512 = "avx512[0-9a-z_]*|amx[0-9a-z_]*"
CLASSES: Mapping[str, Hidden] = {
    "haswell": Hidden("libggml-cpu-haswell.so", _AVX512),
    "sse42": Hidden("libggml-cpu-sse42.so", f"{_AVX512}|avx[0-9a-z_]*|fma|f16c|bmi[12]"),
}


def hidden(environ: Mapping[str, str] = os.environ) -> Hidden | None:
    """Return what SANDBOX_CPU hides; None where it is not set.

    Raises SandboxError on a word that is not in CLASSES.
    """
    name = environ.get(_VARIABLE)
    if not name:
        return None
    if name not in CLASSES:
        known = " or ".join(CLASSES)
        raise SandboxError(f"{_VARIABLE} is invalid: {name!r} was found. Set it to {known}.")
    return CLASSES[name]
