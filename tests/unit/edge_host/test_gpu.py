"""The GPU check: what passes it, what does not, and how a failure is explained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from edge_fleet.settings import VARIABLES
from edge_fleet.verification import unverified_gpu as of_a_host
from edge_host.engine_log import GPU_LINES, GPU_REASONS, parse_engine_log
from edge_host.gpu_offload import _EXPLANATIONS, explain, gpu_problem
from edge_host.release.errors import ReleaseError
from edge_host.release.verification import Verification

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
ENGINES = ("llamacpp", "ollama", "vllm")
ENGINE_LOGS: list[dict[str, Any]] = [
    reading
    for path in sorted((FIXTURES / "boards").glob("engines*.yml"))
    for reading in yaml.safe_load(path.read_text())
]


def parsed(*lines: str) -> dict[str, Any]:
    """What is read of an engine's log, with the time stamps that docker puts before its lines."""
    return parse_engine_log([f"1970-01-02T00:00:01.5Z {line}\n" for line in lines], None)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reading", ENGINE_LOGS, ids=lambda each: str(each["board"]))
def test_each_check_on_each_log(reading: dict[str, Any], engine: str) -> None:
    log = parsed(*reading["text"].splitlines())
    gpu = {"layers": 99, "of": log["layers_total"] or 29}
    problem = gpu_problem(gpu, engine, log, reading.get("share"))
    assert (problem is None) == (engine in reading["passes"]), problem
    if problem and log["gpu_reason"]:
        assert explain(log["gpu_reason"]) in problem
        assert f"The engine logged: {log['gpu_said'][0]}" in problem


@pytest.mark.parametrize(
    ("provider", "gpu", "log", "share"),
    [
        ("llamacpp", GPU, LOG, None),
        ("llamacpp", {"layers": 12, "of": 29}, LOG | {"layers_offloaded": 12}, None),
        ("ollama", GPU, LOG | {"gpu_buffers": []}, 1.0),
        ("vllm", GPU, LOG | {"gpu_buffers": [], "platform": "cuda"}, None),
    ],
)
def test_what_passes(
    provider: str, gpu: dict[str, Any], log: dict[str, Any], share: float | None
) -> None:
    assert gpu_problem(gpu, provider, log, share) is None


NOTHING = "none of an unknown number there, with model buffers on no GPU."
NO_BACKEND = "the image's engine was built without a GPU backend"
NO_ROOM = "the rest of the model did not fit the GPU's memory"


@pytest.mark.parametrize(
    ("provider", "log", "share", "seen", "cause"),
    [
        (
            "llamacpp",
            LOG | {"layers_offloaded": 28},
            None,
            "28 of 29 there, with model buffers on CUDA0.",
            NO_ROOM,
        ),
        # A build without a GPU says that it offloaded them all, too.
        (
            "llamacpp",
            LOG | {"gpu_buffers": []},
            None,
            "29 of 29 there, with model buffers on no GPU.",
            NO_BACKEND,
        ),
        (
            "llamacpp",
            LOG | {"layers_offloaded": None, "layers_total": None, "gpu_buffers": []},
            None,
            NOTHING,
            NO_BACKEND,
        ),
        # What its log says counts for nothing where its API says how much of the model is there.
        ("ollama", LOG, 0.62, "62% of the model is there.", NO_ROOM),
        ("ollama", LOG, 0, "0% of the model is there.", NO_BACKEND),
        ("ollama", LOG, None, "ollama does not say where the model is.", NO_BACKEND),
        ("vllm", LOG | {"platform": "cpu"}, None, "vllm's log names cpu as its device", NO_BACKEND),
        ("vllm", LOG, None, "vllm's log names no device as its device.", NO_BACKEND),
    ],
)
def test_what_does_not(
    provider: str, log: dict[str, Any], share: float | None, seen: str, cause: str
) -> None:
    problem = gpu_problem(GPU, provider, log, share)
    assert problem is not None
    assert problem.startswith("29 of 29 layers were asked onto the GPU, and ")
    assert seen in problem
    assert f"Likely cause: {cause}. " in problem
    assert problem.endswith(". llm_gpu_required: false turns this check off")


# Engines' own words, from the threads named.
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        # ggml-org/llama.cpp, pull request 23732
        ("NvMapMemAllocInternalTagged: 1075072515 error 12", "memory"),
        ("cudaMalloc failed: out of memory", "memory"),
        # ggml-org/llama.cpp, issue 20431
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 144817.04 MiB on device 0:"
            " cudaMalloc failed: out of memory",
            "memory",
        ),
        ("llama_model_load: error loading model: unable to allocate CUDA0 buffer", "memory"),
        # pytorch/pytorch, issue 185240: a Jetson's words for it
        (
            "RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at"
            ' "../c10/cuda/CUDACachingAllocator.cpp":995, please report a bug to PyTorch.',
            "memory",
        ),
        # ggml-org/llama.cpp, issue 13629: a Jetson AGX Xavier
        (
            "ggml_cuda_init: failed to initialize CUDA:"
            " CUDA driver version is insufficient for CUDA runtime version",
            "driver",
        ),
        # ollama/ollama, issue 18067: an Orin with JetPack 7.2
        ("cudaSetDevice err: 801", "driver"),
        (
            "llama-server: error while loading shared libraries: libcudart.so.13:"
            " cannot open shared object file: No such file or directory",
            "driver",
        ),
        # SciSharp/LLamaSharp, issue 162
        ("CUDA error: no kernel image is available for execution on the device", "architecture"),
        # ollama/ollama, issue 16908
        (
            'level=INFO msg="skipping CUDA device — compute capability not in compiled'
            ' architectures" device=Orin cc=870',
            "architecture",
        ),
        # abetlen/llama-cpp-python, issue 1890
        ("ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", "device"),
        # ollama/ollama, issue 8674
        ('level=INFO msg="no compatible GPUs were discovered"', "device"),
        # ggml-org/llama.cpp, issue 7218
        ("ggml_cuda_init: failed to initialize CUDA: unknown error", "device"),
        # vllm-project/vllm, issue 14413
        ("RuntimeError: No CUDA GPUs are available", "device"),
        # ggml-org/llama.cpp, issue 23943
        ("warning: no usable GPU found, --gpu-layers option will be ignored", "build"),
    ],
)
def test_what_an_engine_logs_and_the_reason(line: str, reason: str) -> None:
    log = parsed("begins", line, line)
    assert (log["gpu_said"], log["gpu_reason"]) == ([line], reason)
    problem = gpu_problem(GPU, "llamacpp", log, None)
    assert problem is not None
    assert f"The engine logged: {line}. {explain(reason)}." in problem


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        # What follows of something else is not the reason.
        (
            (
                "Failed to import from vllm._C with ImportError('libcuda.so.1: cannot open shared"
                " object file: No such file or directory')",
                "RuntimeError: Failed to infer device type",
            ),
            "library",
        ),
        (
            ("RuntimeError: No CUDA GPUs are available", "cudaMalloc failed: out of memory"),
            "memory",
        ),
        (
            (
                'msg="skipping CUDA device — compute capability not in compiled architectures"',
                "CUDA error: out of memory",
            ),
            "memory",
        ),
    ],
)
def test_the_reason_among_several(lines: tuple[str, ...], reason: str) -> None:
    log = parsed(*lines)
    assert log["gpu_reason"] == reason
    assert len(log["gpu_said"]) == len(lines)
    assert parsed(*reversed(lines))["gpu_said"] == log["gpu_said"]


def test_every_reason_is_explained_and_what_it_says_to_set_exists() -> None:
    assert set(_EXPLANATIONS) == set(GPU_REASONS)
    for reason in GPU_REASONS:
        words = explain(reason).replace(",", " ").replace(".", " ").split()
        assert {word for word in words if word.startswith("llm_")} <= set(VARIABLES)


def test_an_engine_that_complains_without_end_is_cut_short() -> None:
    lines = [f"cudaMalloc failed: out of memory {number} {'x' * 300}" for number in range(9)]
    said = parsed(*lines)["gpu_said"]
    assert len(said) == GPU_LINES
    assert max(map(len, said)) == 200


CONFIG = (
    "(EngineCore pid=1) INFO 11-22 10:00:00 [core.py:124] Initializing a V1 LLM engine (v0.30.0)"
    " with config: model='/models/m', quantization=None, device_config={}, seed=0"
)
HEALTHY = (
    "load_tensors: offloaded 29/29 layers to GPU",
    "load_tensors:        CUDA0 model buffer size =  1918.35 MiB",
)


@pytest.mark.parametrize(
    "line",
    [
        # Ollama tries its build for CUDA 13 first, and then that for 12.
        'level=INFO msg="skipping CUDA device — compute capability not in compiled architectures"',
        "ggml_vulkan: 0 = llvmpipe (LLVM 19.1.7, 256 bits) (llvmpipe) | uma: 0",
        "NvMapMemAllocInternalTagged: 1075072515 error 12",
        'msg="no compatible GPUs were discovered"',
    ],
)
def test_a_complaint_fails_no_engine_that_has_its_layers_on_the_gpu(line: str) -> None:
    log = parsed(line, *HEALTHY, CONFIG.format("cuda"))
    assert log["gpu_said"] == [line]
    for engine in ENGINES:
        assert gpu_problem(GPU, engine, log, 1.0) is None


SERVED = ("srv    load_model: loading model '/models/m.gguf'",)
DRAFT = ("srv    load_model: loading draft model '/models/d.gguf'",)
SPECULATIVE = ("0.03.1 I common_speculative_init_result: loading draft model '/models/d.gguf'",)
PART = (
    "load_tensors: offloaded 10/33 layers to GPU",
    "load_tensors:   CPU_Mapped model buffer size =  3000.00 MiB",
)
SMALL = (
    "load_tensors: offloaded 5/5 layers to GPU",
    "load_tensors:        CUDA0 model buffer size =   100.00 MiB",
)


@pytest.mark.parametrize(
    ("lines", "buffers"),
    [
        (SERVED + PART + DRAFT + SMALL, []),
        (DRAFT + SMALL + SERVED + PART, []),
        # As llama.cpp of 2026 has it.
        (SERVED + PART + SPECULATIVE + SMALL, []),
        # A log that does not name its models.
        (PART + SMALL, ["CUDA0"]),
        (SMALL + PART, ["CUDA0"]),
    ],
)
def test_a_draft_model_does_not_hide_the_served_one(
    lines: tuple[str, ...], buffers: list[str]
) -> None:
    log = parsed(*lines)
    assert (log["layers_offloaded"], log["layers_total"]) == (10, 33)
    assert log["gpu_buffers"] == buffers
    problem = gpu_problem({"layers": 99, "of": 33}, "llamacpp", log, None)
    assert problem is not None
    assert "10 of 33 there" in problem


def test_a_model_that_is_loaded_again_counts_as_it_is_then() -> None:
    log = parsed(*SERVED, HEALTHY[0], *SERVED, "load_tensors: offloaded 20/29 layers to GPU")
    assert (log["layers_offloaded"], log["layers_total"]) == (20, 29)


@pytest.mark.parametrize(
    "line",
    [
        "llama_prepare_model_devices: using device Vulkan0 (llvmpipe (LLVM 17.0.6, 256 bits))"
        " (0000:00:00.0) - 100 MiB free",
        "llama_model_load_from_file_impl: using device Vulkan0 (llvmpipe (LLVM 15.0.7, 128 bits))"
        " - 7900 MiB free",
        "ggml_vulkan: 0 = llvmpipe (LLVM 20.1.8, 256 bits) (llvmpipe) | uma: 0 | fp16: 0",
        "ggml_vulkan: 0 = Lavapipe (lavapipe) | uma: 0",
        "ggml_vulkan: 0 = SwiftShader Device (Subzero) (SwiftShader driver) | uma: 0",
        "Vulkan0: llvmpipe (LLVM 15.0.7, 256 bits) | uma: 0 | fp16: 1 | warp size: 8",
        "cmn  common_param:   - Vulkan0 : llvmpipe (LLVM 21.1.8, 256 bits) (24105 MiB, 1 MiB free)",
    ],
)
def test_a_software_rasterizer_is_no_gpu(line: str) -> None:
    buffer = "load_tensors:      Vulkan0 model buffer size =  1918.35 MiB"
    log = parsed(line, HEALTHY[0], buffer)
    assert (log["gpu_buffers"], log["gpu_reason"]) == ([], "software")
    problem = gpu_problem(GPU, "llamacpp", log, None)
    assert problem is not None
    assert "software rasterizer" in problem
    # Beside a GPU it is not used.
    other = "ggml_vulkan: 1 = AMD Radeon RX 7800 XT (RADV NAVI32) (radv) | uma: 0"
    log = parsed(line, other, HEALTHY[0], buffer.replace("Vulkan0", "Vulkan1"))
    assert log["gpu_buffers"] == ["Vulkan1"]
    assert gpu_problem(GPU, "llamacpp", log, None) is None


@pytest.mark.parametrize(
    ("line", "buffers"),
    [
        ('source=device.go:240 msg="model weights" device=CUDA0 size="4.1 GiB"', ["CUDA0"]),
        ('source=device.go:240 msg="model weights" device=Vulkan1 size="4.1 GiB"', ["Vulkan1"]),
        ('source=ggml.go:377 msg="model weights" buffer=ROCm0 size="19.0 GiB"', ["ROCm0"]),
        ('source=device.go:245 msg="model weights" device=CPU size="28.3 GiB"', []),
        # Neither is where the model is.
        ('source=device.go:251 msg="kv cache" device=CUDA0 size="1.1 GiB"', []),
        ('source=device.go:262 msg="compute graph" device=CUDA0 size="884.1 MiB"', []),
    ],
)
def test_the_devices_that_ollama_s_own_engine_names(line: str, buffers: list[str]) -> None:
    assert parsed(line)["gpu_buffers"] == buffers


@pytest.mark.parametrize(
    ("lines", "platform"),
    [
        # Since 0.11.1 nothing else names the device.
        ((CONFIG.format("cuda"),), "cuda"),
        ((CONFIG.format("cuda:1"),), "cuda"),
        ((CONFIG.format("cpu"),), "cpu"),
        # With colours, as its processes have their names.
        (("\x1b[0;36m(EngineCore pid=1)\x1b[0;0m INFO " + CONFIG.format("cuda"),), "cuda"),
        # What it runs on counts for more than what it detected.
        (("Automatically detected platform cuda.", CONFIG.format("cpu")), "cpu"),
        (("Automatically detected platform cpu.",), "cpu"),
        # Other lines have it, too, and none of them is from its start.
        (
            ("Dumping input data for V1 LLM engine (v0.30.0) with config: device_config=cuda,",),
            None,
        ),
        (("INFO [core.py:1] Initializing a V1 LLM engine (v0.30.0) with config: model='m'",), None),
    ],
)
def test_the_device_of_vllm(lines: tuple[str, ...], platform: str | None) -> None:
    assert parsed(*lines)["platform"] == platform


@pytest.mark.parametrize("name", ["engine-log-llamacpp-11669.txt", "engine-log-ollama-0.34.txt"])
def test_real_engines_without_a_gpu_do_not_pass(name: str) -> None:
    """Both were asked for no layers; what they log is what a real build without a GPU does."""
    log = parse_engine_log((FIXTURES / name).read_text().splitlines(), None)
    for provider in ENGINES:
        assert gpu_problem(GPU, provider, log, None) is not None


def test_the_check_of_a_host_that_goes_on() -> None:
    plan = {"provider": "ollama", "gpu": GPU | {"required": True}}
    assert of_a_host(plan, LOG, {"gpu_share": 1.0}) is None
    assert "50% of the model" in str(of_a_host(plan, LOG, {"gpu_share": 0.5}))
    assert of_a_host(plan | {"gpu": GPU | {"required": False}}, LOG, {"gpu_share": 0.5}) is None


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("restarted", [True, False])
def test_an_engine_that_ends_by_its_gpu_is_explained(required: bool, restarted: bool) -> None:
    """vLLM and torch end where others go on: before anything of them can be verified."""
    lines = ["RuntimeError: Unexpected error ... Error 804: forward compatibility was attempted"]
    lines += [f"Traceback, line {number}" for number in range(30)]
    asked: list[str] = []
    state = {
        "Running": restarted,
        "Restarting": False,
        "ExitCode": 1,
        "StartedAt": "2026-11-22T10:00:00.5Z",
    }

    def log_lines(name: str, until: str) -> list[str]:
        asked.append(until)
        return lines

    docker = SimpleNamespace(
        inspect=lambda name: {"State": state, "RestartCount": int(restarted)},
        read_log_lines=log_lines,
    )
    verification = Verification.__new__(Verification)
    vars(verification).update(
        _host=SimpleNamespace(docker=docker),
        _release=SimpleNamespace(plan={"gpu": {"required": required}}),
        _engine="edge-llm-engine-a",
        _restarts=0,
    )
    with pytest.raises(ReleaseError) as failure:
        verification._check_engine_runs()
    expected = "the engine ended while it started (exit status 1)"
    expected += f". {explain('compatibility')}" if required else ". The reason is in its log"
    assert str(failure.value) == expected
    assert failure.value.log.splitlines() == lines[-15:]
    assert bool(asked[0]) == restarted
