"""Which image a board gets: rules of L4T and architecture, and what every row must say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edge_fleet.l4t import JETPACKS, l4t_of
from edge_fleet.plan.build import deployment_plan
from edge_fleet.plan.image import choose_image, pinned
from edge_host.image_ref import is_pinned
from tests.unit.edge_fleet.conftest import OWN_IMAGE, ROOT, Change

JETSON, PI, GENERIC = "jetson", "pi", "generic"
ARM, X86 = "aarch64", "x86_64"


@pytest.mark.parametrize(
    ("provider", "kind", "arch", "l4t", "gpu", "image"),
    [
        # R35: one image for any minor.
        ("llamacpp", JETSON, ARM, (35, 1), True, "dustynv/llama_cpp:r35.4.1"),
        ("llamacpp", JETSON, ARM, (35, 6), True, "dustynv/llama_cpp:r35.4.1"),
        # R36: split at .4.
        ("llamacpp", JETSON, ARM, (36, 2), True, "dustynv/llama_cpp:r36.2.0"),
        ("llamacpp", JETSON, ARM, (36, 3), True, "dustynv/llama_cpp:r36.2.0"),
        ("llamacpp", JETSON, ARM, (36, 4), True, "llama_cpp:b8708-r36.4-tegra-aarch64-cu126-22.04"),
        ("llamacpp", JETSON, ARM, (36, 5), True, "llama_cpp:b8708-r36.4-tegra-aarch64-cu126-22.04"),
        # Thor and JetPack 7: CUDA 13.
        ("llamacpp", JETSON, ARM, (38, 2), True, "ghcr.io/nvidia-ai-iot/llama_cpp@"),
        ("llamacpp", JETSON, ARM, (39, 2), True, "ghcr.io/nvidia-ai-iot/llama_cpp@"),
        # Without layers on the GPU a Jetson keeps its own image.
        (
            "llamacpp",
            JETSON,
            ARM,
            (36, 4),
            False,
            "llama_cpp:b8708-r36.4-tegra-aarch64-cu126-22.04",
        ),
        ("llamacpp", PI, ARM, None, False, "ggml-org/llama.cpp:server-b11176"),
        ("llamacpp", GENERIC, X86, None, False, "ggml-org/llama.cpp:server-b11176"),
        ("llamacpp", GENERIC, X86, None, True, "ggml-org/llama.cpp:server-cuda-b11176"),
        ("llamacpp", GENERIC, ARM, None, True, None),
        ("ollama", JETSON, ARM, (35, 4), True, "ollama/ollama:0.34.0"),
        ("ollama", JETSON, ARM, (39, 2), True, "ollama/ollama:0.34.0"),
        ("ollama", PI, ARM, None, False, "ollama/ollama:0.34.0"),
        ("vllm", JETSON, ARM, (35, 6), True, None),
        ("vllm", JETSON, ARM, (36, 3), True, None),
        ("vllm", JETSON, ARM, (36, 4), True, "vllm:0.14.0-r36.4-tegra-aarch64-cu126-22.04"),
        ("vllm", JETSON, ARM, (38, 2), True, "vllm:r38.2.arm64-sbsa-cu130-24.04"),
        ("vllm", JETSON, ARM, (39, 2), True, "vllm/vllm-openai:v0.30.0"),
        ("vllm", GENERIC, X86, None, True, "vllm/vllm-openai:v0.30.0"),
        ("vllm", GENERIC, X86, None, False, None),
        ("vllm", PI, ARM, None, False, None),
    ],
)
def test_images_follow_board_and_l4t(
    catalogues: dict[str, Any],
    provider: str,
    kind: str,
    arch: str,
    l4t: tuple[int, int] | None,
    gpu: bool,
    image: str | None,
) -> None:
    release = {"major": l4t[0], "minor": l4t[1]} if l4t else None
    board = {"kind": kind, "arch": arch}
    row = choose_image(catalogues["engines"][provider], board, release, gpu)
    if image is None:
        assert row is None
    else:
        assert row is not None
        assert image in pinned(row)


def test_a_key_without_a_value_narrows_nothing_down() -> None:
    row = {"image": "x", "digest": None, "gpu": None, "kind": None, "arch": None, "l4t": None}
    board = {"kind": PI, "arch": ARM}
    assert choose_image({"images": [row]}, board, None, False) == row


def test_vllm_on_an_orin_with_jetpack_7(jetson: dict[str, Any], catalogues: dict[str, Any]) -> None:
    jetson["board"]["l4t"] = {"major": 39, "minor": 2, "patch": 1, "text": "39.2.1"}
    given = {"llm_provider": "vllm", "llm_model": "smollm2-135m"}
    plan = deployment_plan(jetson, "orin", given, catalogues)
    assert plan["problems"] == []
    assert plan["engine"]["image"].startswith("docker.io/vllm/vllm-openai:v0.30.0@sha256:")
    # It would refuse to start where nine tenths of the memory are not free, whatever its cache is.
    shares = [word for word in plan["engine"]["command"] if "gpu-memory-utilization" in word]
    assert shares == ["--gpu-memory-utilization=0.01"]


@pytest.mark.parametrize("l4t", [(32, 7), (34, 1), (37, 0), (40, 0)])
def test_no_image_is_for_a_release_between(
    catalogues: dict[str, Any], l4t: tuple[int, int]
) -> None:
    board = {"kind": "jetson", "arch": "aarch64"}
    release = {"major": l4t[0], "minor": l4t[1]}
    rows = [row for row in catalogues["engines"]["llamacpp"]["images"] if "l4t" in row]
    assert choose_image({"images": rows}, board, release, True) is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"kind": "generic", "l4t": None},
            "engines.yml has no llamacpp image for a generic on aarch64. Set llm_image to an image",
        ),
        (
            {"l4t": {"major": 36, "minor": 3, "patch": 0, "text": "36.3.0"}},
            "engines.yml has no vllm image for a jetson with L4T 36.3.0 on aarch64. Set llm_image",
        ),
    ],
)
def test_a_board_without_an_image_is_told(
    jetson: dict[str, Any], catalogues: dict[str, Any], changes: dict[str, Any], sentence: str
) -> None:
    jetson["board"] |= changes
    provider = "vllm" if "vllm" in sentence else "llamacpp"
    given = {"llm_provider": provider, "llm_model": "smollm2-135m", "llm_gpu_layers": 99}
    problems = deployment_plan(jetson, "orin", given, catalogues)["problems"]
    assert any(sentence in each for each in problems), problems


def test_a_row_without_a_digest_is_refused(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    rows = [{"image": "docker.io/some/engine:1"}]
    without = changed(catalogues, "engines.llamacpp.images", rows)
    (problem,) = deployment_plan(jetson, "orin", {}, without)["problems"]
    assert "engines.yml has no digest for docker.io/some/engine:1, the llamacpp image" in problem
    assert "Run `make lock IMAGES=docker.io/some/engine:1`, or set llm_image to" in problem


@pytest.mark.parametrize("own", [OWN_IMAGE, {"llamacpp": OWN_IMAGE, "ollama": "other:1"}])
def test_the_operators_own_image_wins(
    jetson: dict[str, Any], catalogues: dict[str, Any], own: Any
) -> None:
    plan = deployment_plan(jetson, "orin", {"llm_image": own}, catalogues)
    assert plan["engine"]["image"] == OWN_IMAGE
    for_another = {"llm_image": {"ollama": OWN_IMAGE}}
    plan = deployment_plan(jetson, "orin", for_another, catalogues)
    assert plan["engine"]["image"].startswith("ghcr.io/nvidia-ai-iot/llama_cpp:b8708")


def test_an_own_image_of_a_known_repository_keeps_its_entrypoint(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    for name, entrypoint in (
        ("docker.io/dustynv/llama_cpp", ["llama-server"]),
        ("dustynv/llama_cpp:r36.4.0", ["llama-server"]),
        ("registry.example:5000/mine", None),
    ):
        given = {"llm_image": f"{name}@sha256:{'a' * 64}"}
        plan = deployment_plan(jetson, "orin", given, catalogues)
        assert plan["engine"]["entrypoint"] == entrypoint


def test_an_old_engine_gets_what_it_knows(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    """Builds before the unified cache divide their context by their slots."""
    jetson["board"]["l4t"] = {"major": 35, "minor": 4, "patch": 1, "text": "35.4.1"}
    plan = deployment_plan(jetson, "orin", {"llm_model": "smollm2-135m"}, catalogues)
    assert plan["engine"]["variables"]["LLAMA_ARG_CTX_SIZE"] == "${CTX_TOTAL}"
    assert plan["memory"]["kv_cache"] == 4 * 90 * 1024**2
    given = {"llm_model": "smollm2-135m", "llm_cache_type": "q8_0"}
    (problem,) = deployment_plan(jetson, "orin", given, catalogues)["problems"]
    assert "llamacpp with its image for this board does not support q8_0. Use f16." in problem


def every_row(catalogues: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [catalogues["api"], catalogues["registry"]]
    return rows + [row for engine in catalogues["engines"].values() for row in engine["images"]]


def test_every_row_is_pinned_and_none_is_the_latest(catalogues: dict[str, Any]) -> None:
    for row in every_row(catalogues):
        assert is_pinned(pinned(row)), row
        assert not re.search(r":latest\b", row["image"]), row


def test_an_update_bot_finds_every_pin() -> None:
    """A comment names the source and the image, and stands right above a tag and its digest."""
    text = (ROOT / "engines.yml").read_text()
    tagged = re.findall(r"image: (\S+/[^\s/:]+:\S+)", text)
    found = re.findall(r"update-bot: docker (\S+)\n(?:.*\n){0,4}?\s*(?:- )?image: (\S+)", text)
    told = {image for _, image in found}
    for name, image in found:
        repository = image.partition(":")[0].removeprefix("docker.io/").removeprefix("library/")
        assert name == repository
    # One comment is for both rows of a repository whose tags are by L4T.
    assert {image for image in tagged if image not in told} == {
        "docker.io/dustynv/llama_cpp:r35.4.1",
        "ghcr.io/nvidia-ai-iot/vllm:r38.2.arm64-sbsa-cu130-24.04",
        "ghcr.io/ggml-org/llama.cpp:server-b11176",
    }


@pytest.mark.parametrize(
    ("text", "jetpack", "cuda"),
    [
        ("32.4.2", "4.4 DP", "10.2"),
        ("32.7.1", "4.6.1", "10.2"),
        ("35.3.1", "5.1.1", "11.4"),
        ("35.6.2", "5.1.5", "11.4"),
        ("35.6.5", "5.1.7", "11.4"),
        ("36.3.0", "6.0", "12.4"),
        ("36.4.3", "6.2", "12.6"),
        ("36.4.7", "6.2.1", "12.6"),
        ("36.5.2", "6.2.3", "12.6"),
        ("36.9.0", None, "12.6"),
        ("38.2.0", "7.0", "13.0"),
        ("39.2.1", "7.2.1", "13.2"),
        ("33.0.0", None, None),
    ],
)
def test_jetpack_and_cuda_of_an_l4t_release(
    catalogues: dict[str, Any], text: str, jetpack: str | None, cuda: str | None
) -> None:
    assert l4t_of({"text": text}, catalogues) == {"text": text, "jetpack": jetpack, "cuda": cuda}
    assert l4t_of(None, catalogues) is None


def test_the_first_numbers_of_jetpack_are_those_of_the_releases(catalogues: dict[str, Any]) -> None:
    found = {int(l4t[:2]): jetpack[0] for l4t, jetpack in catalogues["jetpack"].items()}
    assert found == JETPACKS


# What engines log: the line that the GPU check needs, and nothing of what clients send.

TRACE_LEVEL = 9181
"""The first build of llama.cpp that is known to have PR 23021, by which libraries log at 4."""
INFO_LEVEL = 7250
"""Builds from here on have PR 17630, by which libraries log at 3, and bodies show from 4 on."""


def verbosity(image: str) -> str | None:
    """What LLAMA_LOG_VERBOSITY must be for an image: the least that prints `offloaded`."""
    if "dustynv/" in image:  # of 2024
        return "0"
    build = re.search(r"[:-]b(\d+)\b", image)
    if build is None:
        return None
    if int(build[1]) >= TRACE_LEVEL:
        return "4"
    assert int(build[1]) >= INFO_LEVEL
    return "3"


def test_no_row_of_llama_cpp_prints_bodies(catalogues: dict[str, Any]) -> None:
    engine = catalogues["engines"]["llamacpp"]
    # Builds that read this one print bodies from 5 on.
    assert engine["environment"]["LLAMA_ARG_LOG_VERBOSITY"] == "4"
    # An image of the operator's own may be of any build.
    assert "LLAMA_LOG_VERBOSITY" not in engine["environment"]
    for row in engine["images"]:
        given = (row.get("environment") or {}).get("LLAMA_LOG_VERBOSITY")
        assert given == verbosity(row["image"]), row["image"]


@pytest.mark.parametrize(
    ("image", "level"),
    [
        ("ghcr.io/ggml-org/llama.cpp:server-b11176", "4"),
        ("ghcr.io/ggml-org/llama.cpp:server-cuda-b9181", "4"),
        ("ghcr.io/nvidia-ai-iot/llama_cpp:b8708-r36.4-tegra-aarch64-cu126-22.04", "3"),
        ("docker.io/dustynv/llama_cpp:r36.2.0", "0"),
        ("ghcr.io/nvidia-ai-iot/llama_cpp", None),
    ],
)
def test_the_level_of_a_build(image: str, level: str | None) -> None:
    assert verbosity(image) == level


def test_a_row_may_replace_a_variable_of_its_engine(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    planned = deployment_plan(jetson, "orin", {"llm_model": "smollm2-135m"}, catalogues)
    found = planned["engine"]["variables"]
    assert (found["LLAMA_ARG_LOG_VERBOSITY"], found["LLAMA_LOG_VERBOSITY"]) == ("4", "3")
    own = {"llm_model": "smollm2-135m", "llm_image": OWN_IMAGE}
    planned = deployment_plan(jetson, "orin", own, catalogues)
    assert "LLAMA_LOG_VERBOSITY" not in planned["engine"]["variables"]


def test_every_row_of_vllm_turns_its_log_of_requests_off(catalogues: dict[str, Any]) -> None:
    engine = catalogues["engines"]["vllm"]
    for row in engine["images"]:
        # The one image of before 0.12 has the option of that time.
        option = "--disable" if ":r38.2." in row["image"] else "--no-enable"
        assert row["command"] == [f"{option}-log-requests"]
    assert not [each for each in engine["command"] if "log-requests" in each]


def test_arguments_of_a_row_follow_those_of_the_engine(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    given = {"llm_provider": "vllm", "llm_model": "smollm2-135m"}
    command = deployment_plan(jetson, "orin", given, catalogues)["engine"]["command"]
    assert command[0] == "serve"
    assert command[-1] == "--no-enable-log-requests"
    own = given | {"llm_image": OWN_IMAGE}
    command = deployment_plan(jetson, "orin", own, catalogues)["engine"]["command"]
    assert not [each for each in command if "log-requests" in each]


def test_ollama_does_not_debug(catalogues: dict[str, Any]) -> None:
    found = catalogues["engines"]["ollama"]["environment"]
    assert (found["OLLAMA_DEBUG"], found["OLLAMA_DEBUG_LOG_REQUESTS"]) == ("0", "0")
