"""llama.cpp's own benchmark, in a container like the engine's, where the engine's image has it.

It loads the weights once more, beside the engine that goes on serving. So it runs only where the
memory is free, and has a memory limit of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Optional

from ..commands import run_together, which
from ..constants import ENGINE_UID, MIB, PROJECT
from ..files import read_text
from ..host_info.hardware import parse_meminfo
from ..json_data import Facts, objects, parse_json
from ..sizes import format_mib

NAME = f"{PROJECT}-llama-bench"
_FIND = 'PATH="$PATH:/app:/usr/local/bin:/opt/llama.cpp/build/bin"; command -v llama-bench'
_SPARE = 256 * MIB
"""Bytes of memory that stay free beside it."""
_PIDS = 256
# Options of llama-bench, by the variables of the release's .env.
_OPTIONS = {"N_GPU_LAYERS": "-ngl", "THREADS": "-t", "BATCH": "-b", "UBATCH": "-ub"}


class LlamaBenchError(Exception):
    """Why there are no figures of llama-bench; a message without its full stop."""


def run_llama_bench(
    root: Path, engine: str, prompt_tokens: int, tokens: int, memory: int, timeout: float
) -> Facts:
    """Return {"prompt_tokens_per_second", "tokens_per_second", "build"} of the engine alone.

    engine: the name of the engine's container; memory: bytes that the model takes. Raises
    LlamaBenchError where the image has no llama-bench, where the memory is not free, or where it
    fails.
    """
    docker = which("docker")
    if docker is None:
        raise LlamaBenchError("the host has no docker command")
    found = _run([docker, "exec", engine, "sh", "-c", _FIND], 30)
    path = found.out.strip()
    if found.code != 0 or not path.startswith("/"):
        raise LlamaBenchError("the engine's image has no llama-bench")
    container = _inspect(docker, engine)
    _, free = parse_meminfo(read_text(Path("/proc/meminfo")) or "")
    if free is not None and free < memory + _SPARE:
        raise LlamaBenchError(
            f"llama-bench does not fit beside the engine: it takes {format_mib(memory)}, and"
            f" {format_mib(max(0, free - _SPARE))} of memory are free"
        )
    settings = read_settings(root)
    command = [
        *(docker, "run", "--rm", f"--name={NAME}", "--network=none", "--read-only"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges:true", f"--pids-limit={_PIDS}"),
        *(f"--user={ENGINE_UID}:{ENGINE_UID}", f"--memory={memory + 64 * MIB}"),
        *("--tmpfs=/tmp:mode=1777,size=64m", "--ulimit=core=0", "--log-driver=none"),
        f"--mount=type=bind,source={root}/models,target=/models,readonly",
        *_gpu(container),
        f"--entrypoint={path}",
        str(container["Config"]["Image"]),
        *bench_arguments(settings, prompt_tokens, tokens),
    ]
    try:
        done = _run(command, timeout)
    finally:
        # The container goes on where the docker command had to be ended.
        _run([docker, "rm", "--force", NAME], 30)
    if done.code != 0:
        last = (done.err.strip() or done.out.strip() or "no output").splitlines()[-1]
        raise LlamaBenchError(f"llama-bench failed: {last}")
    return parse_llama_bench(done.out)


def bench_arguments(settings: Facts, prompt_tokens: int, tokens: int) -> List[str]:
    """Return the arguments of llama-bench for the settings of a release, by its .env."""
    options = [
        word
        for name, option in _OPTIONS.items()
        if settings.get(name)
        for word in (option, settings[name])
    ]
    cache = settings.get("CACHE_TYPE")
    if cache and cache != "f16":
        # A quantized cache needs flash attention.
        options += ["-ctk", cache, "-ctv", cache, "-fa", "1"]
    return [
        *("-m", settings.get("MODEL_PATH", ""), "-p", str(prompt_tokens), "-n", str(tokens)),
        *options,
        *("-r", "3", "-o", "json"),
    ]


def parse_llama_bench(text: str) -> Facts:
    """The figures of `llama-bench -o json`: a test with n_prompt, and one with n_gen."""
    begin = text.find("[")
    tests = objects(parse_json(text[begin:])) if begin >= 0 else []
    result: Facts = {"prompt_tokens_per_second": None, "tokens_per_second": None, "build": None}
    for test in tests:
        speed = test.get("avg_ts")
        if not isinstance(speed, (int, float)):
            continue
        if test.get("n_gen"):
            result["tokens_per_second"] = round(speed, 2)
        elif test.get("n_prompt"):
            result["prompt_tokens_per_second"] = round(speed, 1)
        result["build"] = test.get("build_number")
    if result["tokens_per_second"] is None:
        raise LlamaBenchError("llama-bench printed no figures")
    return result


def read_settings(root: Path) -> Facts:
    """The variables of the current release's .env."""
    lines = (read_text((root / ".env").resolve()) or "").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}


def _inspect(docker: str, engine: str) -> Facts:
    done = _run([docker, "inspect", "--type", "container", engine], 30)
    found = objects(parse_json(done.out))
    if done.code != 0 or not found:
        raise LlamaBenchError(f"the container {engine} cannot be inspected: {done.err.strip()}")
    return found[0]


def _gpu(container: Facts) -> List[str]:
    """The engine's way to the GPU."""
    host = container.get("HostConfig") or {}
    runtime: Optional[str] = host.get("Runtime")
    groups: List[Any] = host.get("GroupAdd") or []
    # Every container has a runtime; that of the GPU is not Docker's own.
    if not runtime or runtime in ("runc", "crun"):
        return []
    variables = [
        f"--env={each}"
        for each in (container.get("Config") or {}).get("Env") or []
        if str(each).startswith("NVIDIA_")
    ]
    return [f"--runtime={runtime}", *(f"--group-add={each}" for each in groups), *variables]


def _run(command: List[str], timeout: float) -> Any:
    return run_together({"command": command}, timeout)["command"]
