"""Judges from an engine's log and API whether its layers are on a GPU; and if not, why.

Pure functions: the control machine imports this module, too.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Tuple

_NEWER_DRIVER = (
    "Update the host's driver (on a Jetson: its JetPack), or set llm_image to an image for the CUDA"
    " of that driver"
)
_FOR_THIS_GPU = "Set llm_image to an image built for this GPU (on a Jetson: for its L4T)"
_ACCESS = (
    "Check the host's driver, and that Docker has the NVIDIA runtime (`docker info` lists it;"
    " nvidia-container-toolkit and `nvidia-ctk runtime configure --runtime=docker` add it)"
)
_LESS_MEMORY = (
    "Stop what else holds it (a desktop session, another engine), restart the board, lower"
    " llm_context_size or llm_parallel, or choose a smaller llm_model"
)
# Each reason of engine_log.GPU_REASONS: the cause, and what to do.
_EXPLANATIONS: Dict[str, Tuple[str, str]] = {
    "occupied": (
        "other processes hold most of the GPU's memory",
        "Stop them (a desktop session, another engine; on a Jetson `fuser -v /dev/nvmap` lists"
        " them, elsewhere nvidia-smi), or restart the board",
    ),
    "memory": ("the GPU's memory is full or fragmented", _LESS_MEMORY),
    "compatibility": (
        "the image's CUDA is newer than the host's driver, and this GPU's driver has no forward"
        " compatibility",
        _NEWER_DRIVER,
    ),
    "toolchain": (
        "the image's GPU code was compiled with a newer CUDA than the host's driver knows",
        _NEWER_DRIVER,
    ),
    "compiler": (
        "the container has no PTX compiler (libnvidia-ptxjitcompiler), which the image needs since"
        " it has no code for this GPU itself",
        f"{_FOR_THIS_GPU}, or reinstall the host's driver (on a Jetson: nvidia-l4t-3d-core) and"
        " nvidia-container-toolkit",
    ),
    "driver": (
        "the image is for another CUDA than the host's driver",
        f"{_FOR_THIS_GPU}, or update the host's driver",
    ),
    "architecture": (
        "the image has no code for the compute capability of this GPU",
        _FOR_THIS_GPU,
    ),
    "library": (
        "the container has no libcuda.so.1, the library of the host's NVIDIA driver, as without"
        " Docker's `--runtime nvidia`",
        _ACCESS,
    ),
    "software": (
        "the Vulkan device is a software rasterizer, which computes on the CPU",
        "Set llm_image to an image built for this GPU (CUDA for one of NVIDIA's), or install the"
        " GPU's Vulkan driver in the image",
    ),
    "device": ("the container has no access to a GPU", _ACCESS),
    "platform": (
        "vLLM found no device that its build is for",
        f"{_FOR_THIS_GPU}. {_ACCESS}",
    ),
    "build": (
        "the image's engine was built without a GPU backend, or the container has no access to the"
        " GPU",
        f"{_FOR_THIS_GPU}. {_ACCESS}",
    ),
}
_NO_BACKEND = ("the image's engine was built without a GPU backend", _FOR_THIS_GPU)
_NO_ROOM = ("the rest of the model did not fit the GPU's memory", _LESS_MEMORY)


def explain(reason: str) -> str:
    """The cause for a reason of engine_log.GPU_REASONS, and what to do: two sentences."""
    return _sentences(_EXPLANATIONS[reason])


def _sentences(explanation: Tuple[str, str]) -> str:
    cause, fix = explanation
    return f"Likely cause: {cause}. {fix}"


def gpu_problem(
    gpu: Mapping[str, Any], provider: str, log: Mapping[str, Any], share: Optional[float]
) -> Optional[str]:
    """Why it is not verified that an engine has its layers on a GPU; None where it is.

    For llama.cpp the log decides: a build without a GPU can log that it offloaded all layers, so a
    GPU's own buffer is required as well. For Ollama the share of the model in GPU memory decides,
    which its API reports; for vLLM the device in its log. `gpu` is that of the plan ({"layers",
    "of": the number of all layers}), `log` is the result of engine_log.parse_engine_log, `share` is
    gpu_share of the chat API's report.

    A warning in the log is no problem by itself: some engines with all layers on a GPU skipped
    another GPU first.
    """
    # Records of changes by earlier versions have no `of`.
    asked, of = gpu["layers"], gpu.get("of", gpu["layers"])
    part = False
    if provider == "ollama":
        if share is not None and share >= 1:
            return None
        part = bool(share)
        seen = (
            "ollama does not say where the model is"
            if share is None
            else f"{share:.0%} of the model is there"
        )
    elif provider == "vllm":
        if log["platform"] == "cuda":
            return None
        seen = f"vllm's log names {log['platform'] or 'no device'} as its device"
    else:
        offloaded, total = log["layers_offloaded"], log["layers_total"]
        wanted = min(asked, of if total is None else total)
        if log["gpu_buffers"] and offloaded is not None and offloaded >= wanted:
            return None
        part = bool(log["gpu_buffers"] and offloaded)
        seen = (
            f"the engine's log has {'none' if offloaded is None else offloaded} of"
            f" {'an unknown number' if total is None else total} there, with model buffers on"
            f" {', '.join(log['gpu_buffers']) or 'no GPU'}"
        )
    unknown = _NO_ROOM if part else _NO_BACKEND
    said = log["gpu_said"]
    return (
        f"{min(asked, of)} of {of} layers were asked onto the GPU, and {seen}."
        + (f" The engine logged: {'; '.join(said)}." if said else "")
        + f" {_sentences(_EXPLANATIONS.get(str(log.get('gpu_reason')), unknown))}."
        " llm_gpu_required: false turns this check off"
    )
