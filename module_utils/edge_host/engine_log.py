"""Reads what an engine logged about its start and its GPU.

Pure functions: the control machine imports this module, too.
"""

from __future__ import annotations

import datetime
import re
from typing import Dict, Iterable, List, Optional, Tuple

from .json_data import Facts

# llama.cpp names a buffer after its device, with its use behind an underscore. A list of GPUs, not
# of other devices: an unknown device must not count as a GPU.
_GPU = re.compile(r"^(?:CUDA|ROCm|HIP|MUSA|Vulkan|SYCL|MTL|Metal|OpenCL|CANN)\d*$")
_BUFFERS = re.compile(
    # Before 2025 llama.cpp did not name the kind of a buffer in the lines about loading.
    r"load_tensors:\s+(\S+) (?:model )?buffer size"
    # Ollama's own engine, which called the field "buffer" until 0.11.
    r"|msg=\"model weights\" (?:device|buffer)=(\S+)"
)
_OFFLOADED = re.compile(r"offloaded ([0-9]{1,6})/([0-9]{1,6}) layers to GPU")
# llama-server names each model that it loads: the served one, and a draft for speculation.
_LOADING = re.compile(r"\bloading (draft )?model '")
# What is behind a device, from llama.cpp's choice of devices and from its Vulkan backend's list.
_DEVICE_NAME = re.compile(
    r"using device (\w+) \((.*)|ggml_vulkan: ([0-9]{1,3}) = (.*)|\bVulkan([0-9]{1,3}) ?: (.*)"
)
# Vulkan drivers that compute on the CPU: Mesa's (lavapipe's device is called llvmpipe), Google's,
# and Windows' under WSL.
SOFTWARE_GPU = r"llvmpipe|[Ll]avapipe|SwiftShader|Microsoft Basic Render"
_READY = re.compile(
    r"(?:main|llama_server): model loaded"  # llama.cpp
    r"|server is listening on http|llama_server: listening on http"  # llama.cpp
    r"|Application startup complete"  # vLLM
)
# Ollama loads a model at the first request, which may be long after its start.
_OLLAMA_LISTENS = re.compile(r'msg="Listening on \S+ \(version ')
_OLLAMA_LOADED = re.compile(
    r"(?:llama-server|llama runner) started in ([0-9]{1,6}(?:\.[0-9]{1,9})?) seconds"
)
# vLLM names its device at INFO in every release (0.6 to 0.32 were read), the platform that it
# detected until 0.11.0 only: since 0.11.1 that is logged at DEBUG.
_DEVICE_CONFIG = re.compile(
    r"Initializing an? (?:V[0-9] )?LLM engine \(v[^)]{1,100}\) with config: .*?"
    r"\bdevice_config=([a-z]{1,40})"
)
_PLATFORM = re.compile(r"Automatically detected platform (\w{1,40})\b")
# What engines log about a GPU that they cannot use, by its reason, which gpu_offload explains. A
# log with several has the first of these: the most precise one, before those that follow from it.
GPU_REASONS = {
    # vLLM claims a share of all memory before it loads anything.
    "occupied": r"Free memory on device .*less than desired GPU memory utilization",
    # https://github.com/ggml-org/llama.cpp/pull/23732: L4T from 36.4.7 on.
    # https://github.com/pytorch/pytorch/issues/185240: torch's words for it on a Jetson.
    "memory": r"NvMapMem\w+: (?:\d+ )?error|cudaMalloc failed: out of memory"
    r"|CUDA error: out of memory|CUDA out of memory|NVML_SUCCESS == r"
    r"|unable to allocate (?:CUDA|Vulkan|ROCm)\d* buffer"
    r"|failed to allocate (?:CUDA|Vulkan|ROCm)\d* buffer",
    "compatibility": r"Error 804: forward compatibility|forward compatibility was attempted",
    "toolchain": r"PTX was compiled with an unsupported toolchain",
    "compiler": r"PTX JIT compiler library not found",
    # llama.cpp#13629, ollama#18067
    "driver": r"driver version is insufficient|unsupported display driver|err: 801"
    r"|libcudart\.so\S{0,20}: cannot open",
    "architecture": r"skipping CUDA device|no kernel image is available"
    r"|device kernel image is invalid",
    "library": r"libcuda\.so\.1: cannot open",
    "software": rf"(?:using device \w+ \(|ggml_vulkan: \d+ = |\bVulkan\d+ ?: )(?:{SOFTWARE_GPU})",
    "device": r"no CUDA-capable device|No CUDA GPUs are available|no compatible GPUs"
    r"|no GPU detected|failed to initialize CUDA",
    "platform": r"Failed to infer device type",
    "build": r"no usable GPU found",
}
_GPU_SAID = re.compile("|".join(GPU_REASONS.values()))
GPU_LINES = 3
"""The most lines about a GPU that are kept of a log."""


def parse_time(text: str) -> Optional[float]:
    """Seconds since 1970 of an RFC 3339 time in UTC, as docker writes them (9 decimals)."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,12})?Z$", text, re.ASCII)
    if match is None:
        return None
    try:
        moment = datetime.datetime.strptime(match.group(1) + "+0000", "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:  # a 13th month
        return None
    return moment.timestamp() + float(match.group(2) or 0)


def parse_engine_log(lines: Iterable[str], started: Optional[float]) -> Facts:
    """What an engine logged about its start, from `docker logs --timestamps`.

    {"layers_offloaded", "layers_total" (ints or None; those of the served model, where a draft
    model is loaded beside it), "gpu_buffers" (devices that hold a model buffer of their own),
    "platform" (the kind of device that vLLM runs on, such as "cuda" or "cpu", or None), "gpu_said"
    (lines about a GPU that it cannot use), "gpu_reason" (the one of GPU_REASONS that they give, or
    None), "start_seconds" (float or None)}. `started` is the container's start in seconds since
    1970.

    A build without a GPU can log that it offloaded all layers, so offload is verified by the number
    together with a device in gpu_buffers. start_seconds is how long the engine took until
    it could answer; for Ollama, its own start and its first load, without the time between them in
    which no request came.
    """
    offloaded: Optional[int] = None
    total: Optional[int] = None
    draft = False
    devices: List[str] = []
    software: List[str] = []
    config: Optional[str] = None
    detected: Optional[str] = None
    said = _GpuLines()
    seconds: Optional[float] = None
    ollama: Optional[float] = None  # seconds until it listened
    for line in lines:
        stamp, _, message = line.partition(" ")
        match = _LOADING.search(message)
        if match:
            draft = match.group(1) is not None
        match = _OFFLOADED.search(message)
        # A log that does not name its models can have two: a draft has fewer layers.
        if match and not draft and int(match.group(2)) >= (total or 0):
            offloaded, total = int(match.group(1)), int(match.group(2))
        match = _BUFFERS.search(message)
        if match and not draft:
            device = re.sub(r"_(Mapped|Split|Private)$", "", match.group(1) or match.group(2))
            if _GPU.match(device) and device not in devices:
                devices.append(device)
        match = _DEVICE_NAME.search(message)
        if match:
            device, name = _device_name(match)
            if re.match(SOFTWARE_GPU, name):
                software.append(device)
        match = _DEVICE_CONFIG.search(message)
        if match and config is None:
            config = match.group(1)
        match = _PLATFORM.search(message)
        if match:
            detected = match.group(1)
        said.add(message)
        moment = parse_time(stamp)
        if seconds is not None or started is None or moment is None:
            continue
        loaded = _OLLAMA_LOADED.search(message)
        if _OLLAMA_LISTENS.search(message):
            ollama = moment - started
        elif ollama is not None and loaded:
            seconds = round(ollama + float(loaded.group(1)), 2)
        elif ollama is None and _READY.search(message):
            seconds = round(moment - started, 2)
    return {
        "layers_offloaded": offloaded,
        "layers_total": total,
        "gpu_buffers": [device for device in devices if device not in software],
        "platform": config or detected,
        "gpu_said": said.lines,
        "gpu_reason": said.reason,
        "start_seconds": seconds,
    }


def _device_name(match: "re.Match[str]") -> Tuple[str, str]:
    """(the device, what is behind it) of a line that _DEVICE_NAME matches."""
    device, name, number, listed, other, known = match.groups()
    return (device, name) if device else (f"Vulkan{number or other}", listed or known or "")


class _GpuLines:
    """Lines about a GPU that an engine cannot use, by their reason."""

    def __init__(self) -> None:
        self._found: Dict[str, List[str]] = {}

    def add(self, message: str) -> None:
        if not _GPU_SAID.search(message):
            return
        reason = next(name for name, words in GPU_REASONS.items() if re.search(words, message))
        found = self._found.setdefault(reason, [])
        text = message.strip()[:200]
        if len(found) < GPU_LINES and text not in found:
            found.append(text)

    @property
    def reason(self) -> Optional[str]:
        return next((reason for reason in GPU_REASONS if reason in self._found), None)

    @property
    def lines(self) -> List[str]:
        """Those of the reason first."""
        found = [line for reason in GPU_REASONS for line in self._found.get(reason, ())]
        return found[:GPU_LINES]


def gpu_reason(lines: Iterable[str]) -> Optional[str]:
    """Why an engine cannot use its GPU, by the lines of its log: one of GPU_REASONS, or None."""
    said = _GpuLines()
    for line in lines:
        said.add(line)
    return said.reason
