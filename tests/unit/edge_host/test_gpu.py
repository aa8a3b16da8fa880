"""The gate of GPU offload: what proves it, what does not, and what is said then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from filter_plugins.gpu import gpu_problem as of_a_host
from module_utils import edge_llm_gpu
from module_utils import edge_llm_host as host

FIXTURES = Path(__file__).parent / "fixtures"
GPU = {"layers": 99, "of": 29}
LOG: dict[str, Any] = {
    "layers_offloaded": 29,
    "layers_total": 29,
    "gpu_buffers": ["CUDA0"],
    "platform": None,
    "gpu_said": [],
    "gpu_reason": None,
    "start_seconds": 15.0,
}


@pytest.mark.parametrize(
    ("provider", "gpu", "log", "share"),
    [
        ("llamacpp", GPU, LOG, None),
        ("llamacpp", {"layers": 12, "of": 29}, LOG | {"layers_offloaded": 12}, None),
        ("ollama", GPU, LOG | {"gpu_buffers": []}, 1.0),
        ("vllm", GPU, LOG | {"gpu_buffers": [], "platform": "cuda"}, None),
    ],
)
def test_what_proves_it(
    provider: str, gpu: dict[str, Any], log: dict[str, Any], share: float | None
) -> None:
    assert edge_llm_gpu.gpu_problem(gpu, provider, log, share) is None


NOTHING = "none of an unknown number, with model buffers on no GPU"


@pytest.mark.parametrize(
    ("provider", "log", "share", "seen"),
    [
        ("llamacpp", LOG | {"layers_offloaded": 28}, None, "28 of 29, with model buffers on CUDA0"),
        # A build without a GPU says that it offloaded them all, too.
        ("llamacpp", LOG | {"gpu_buffers": []}, None, "29 of 29, with model buffers on no GPU"),
        (
            "llamacpp",
            LOG | {"layers_offloaded": None, "layers_total": None, "gpu_buffers": []},
            None,
            NOTHING,
        ),
        # What its log tells counts for nothing where it tells how much of the model is there.
        ("ollama", LOG, 0.62, "62% of the model is there"),
        ("ollama", LOG, 0, "0% of the model is there"),
        ("ollama", LOG, None, "ollama does not tell"),
        ("vllm", LOG | {"platform": "cpu"}, None, "vllm found the platform cpu"),
        ("vllm", LOG, None, "vllm found the platform that it does not tell"),
    ],
)
def test_what_does_not(provider: str, log: dict[str, Any], share: float | None, seen: str) -> None:
    problem = edge_llm_gpu.gpu_problem(GPU, provider, log, share)
    assert problem is not None
    assert problem.startswith("29 of 29 layers were asked onto the GPU, and ")
    assert seen in problem
    assert "likely the image's engine was built without a GPU" in problem
    assert problem.endswith("accepted is all that were asked, or llm_gpu_required: false")


# Engines' own words, from the threads named.
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        # ggml-org/llama.cpp, pull request 23732
        ("NvMapMemAllocInternalTagged: 1075072515 error 12", "the GPU's memory was full or in"),
        ("cudaMalloc failed: out of memory", "the GPU's memory was full or in pieces"),
        # ggml-org/llama.cpp, issue 20431
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 144817.04 MiB on device 0:"
            " cudaMalloc failed: out of memory",
            "the GPU's memory was full or in pieces",
        ),
        (
            "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
            "the GPU's memory was full or in pieces",
        ),
        # ggml-org/llama.cpp, issue 13629: a Jetson AGX Xavier
        (
            "ggml_cuda_init: failed to initialize CUDA:"
            " CUDA driver version is insufficient for CUDA runtime version",
            "the image is for another CUDA than the board's driver",
        ),
        # ollama/ollama, issue 18067: an Orin with JetPack 7.2
        ("cudaSetDevice err: 801", "the image is for another CUDA than the board's driver"),
        # SciSharp/LLamaSharp, issue 162
        (
            "CUDA error: no kernel image is available for execution on the device",
            "the image is for another CUDA than the board's driver",
        ),
        # abetlen/llama-cpp-python, issue 1890
        (
            "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected",
            "the container saw no GPU",
        ),
        # ollama/ollama, issue 8674
        ('level=INFO msg="no compatible GPUs were discovered"', "the container saw no GPU"),
        # ggml-org/llama.cpp, issue 7218
        ("ggml_cuda_init: failed to initialize CUDA: unknown error", "the container saw no GPU"),
    ],
)
def test_what_an_engine_says_and_the_likely_reason(line: str, reason: str) -> None:
    stamped = f"2026-11-20T10:00:00.000000000Z {line}"
    log = host.parse_engine_log(["2026-11-20T10:00:00.000000000Z begins", stamped, stamped], None)
    assert log["gpu_said"] == [line]
    problem = edge_llm_gpu.gpu_problem(GPU, "llamacpp", log, None)
    assert problem is not None
    assert f"(it said: {line}); likely {reason}" in problem


def test_every_reason_is_explained() -> None:
    assert set(edge_llm_gpu._EXPLANATIONS) == set(host.GPU_REASONS)


def test_an_engine_that_complains_without_end_is_cut_short() -> None:
    lines = [f"T cudaMalloc failed: out of memory {number} {'x' * 300}" for number in range(9)]
    said = host.parse_engine_log(lines, None)["gpu_said"]
    assert len(said) == host.GPU_LINES
    assert max(map(len, said)) == 200


@pytest.mark.parametrize("name", ["engine-log-llamacpp-11669.txt", "engine-log-ollama-0.34.txt"])
def test_real_engines_without_a_gpu_are_no_proof(name: str) -> None:
    """Both were asked for no layers; what they say is what a real build without a GPU does."""
    log = host.parse_engine_log((FIXTURES / name).read_text().splitlines(), None)
    for provider in ("llamacpp", "ollama", "vllm"):
        assert edge_llm_gpu.gpu_problem(GPU, provider, log, None) is not None


def test_the_proof_of_a_host_that_goes_on() -> None:
    plan = {"provider": "ollama", "gpu": GPU | {"required": True}}
    assert of_a_host(plan, LOG, {"gpu_share": 1.0}) is None
    assert "50% of the model" in str(of_a_host(plan, LOG, {"gpu_share": 0.5}))
    assert of_a_host(plan | {"gpu": GPU | {"required": False}}, LOG, {"gpu_share": 0.5}) is None
