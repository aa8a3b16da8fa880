"""Whether an engine has its layers on a GPU, from what was read of it; and if not, why.

Nothing here reads a host: edge_llm_host does, and what it found comes in. Standard library only.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

Facts = Dict[str, Any]

# Reasons (edge_llm_host.GPU_REASONS), and what to do about each.
_EXPLANATIONS = {
    "memory": "the GPU's memory was full or in pieces: stop what else holds it (a desktop session),"
    " restart the board, or choose a smaller llm_context_size or llm_model",
    "cuda": "the image is for another CUDA than the board's driver: set llm_image to one for its"
    " L4T",
    "device": "the container saw no GPU: look at the host's driver, and at Docker's nvidia runtime"
    " (nvidia-ctk)",
    "build": "the image's engine was built without a GPU, or the container saw none: see which"
    " image it is, and the host's driver",
}
_UNKNOWN = "the image's engine was built without a GPU: see which image it is, and llm_image"


def gpu_problem(gpu: Facts, provider: str, log: Facts, share: Optional[float]) -> Optional[str]:
    """Why it is not proven that an engine has its layers on a GPU; None where it is.

    llama.cpp is held to its log: a build without a GPU can say that it offloaded them all, so the
    proof is a GPU's own buffer, too. Ollama is held to what it tells of the model's place, vLLM to
    the platform that it found. `gpu` is that of the plan ({"layers", "of": how many there are}),
    `share` is gpu_share of the chat API's report.
    """
    # Records of changes that were made before `of` was told have it not.
    asked, of = gpu["layers"], gpu.get("of", gpu["layers"])
    if provider == "ollama":
        if share is not None and share >= 1:
            return None
        seen = "ollama does not tell" if share is None else f"{share:.0%} of the model is there"
    elif provider == "vllm":
        if log["platform"] == "cuda":
            return None
        seen = f"vllm found the platform {log['platform'] or 'that it does not tell'}"
    else:
        offloaded, total = log["layers_offloaded"], log["layers_total"]
        if log["gpu_buffers"] and offloaded is not None and offloaded >= min(asked, total):
            return None
        seen = (
            f"the engine's log tells of {'none' if offloaded is None else offloaded} of"
            f" {'an unknown number' if total is None else total}, with model buffers on"
            f" {', '.join(log['gpu_buffers']) or 'no GPU'}"
        )
    said = log["gpu_said"]
    return (
        f"{min(asked, of)} of {of} layers were asked onto the GPU, and {seen}"
        + (f" (it said: {'; '.join(said)})" if said else "")
        + f"; likely {_EXPLANATIONS.get(log['gpu_reason'], _UNKNOWN)}"
        "; accepted is all that were asked, or llm_gpu_required: false"
    )
