"""The schemas of models.yml, engines.yml and boards.yml, and messages with file, line and key."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edge_fleet.catalogue import SCHEMAS, problems_of, read, read_file
from edge_fleet.plan.build import deployment_plan
from tests.unit.edge_fleet.conftest import ROOT, Change


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in SCHEMAS:
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def changed_file(folder: Path, name: str, old: str, new: str) -> int:
    """Replace the first occurrence of a text in a file, and return its line."""
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + 1


def test_the_catalogues_as_shipped_are_valid(catalogues: dict[str, Any]) -> None:
    found = read(str(ROOT))
    assert found.pop("problems") == []
    assert found == catalogues
    assert problems_of(catalogues) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "models.yml",
            "size: 807694464",
            "size: 807.6",
            "models.llama-3.2-1b-instruct.gguf.files.0.size is invalid: 807.6. Use a whole number.",
        ),
        (
            "models.yml",
            "size: 807694464",
            "size: 0",
            "models.llama-3.2-1b-instruct.gguf.files.0.size is invalid: 0. Use a whole number from"
            " 1 up.",
        ),
        (
            "models.yml",
            "sha256: 6f85a640",
            "sha256: 6F85a640",
            "models.llama-3.2-1b-instruct.gguf.files.0.sha256 is invalid:"
            " '6F85a640a97cf2bf5b8e764087b1e83da0fdb51d7c9fab7d0fece9385611df83'."
            " Use 64 hexadecimal digits in lower case.",
        ),
        (
            "models.yml",
            "file: Llama-3.2-1B-Instruct-Q4_K_M.gguf",
            "file: ../Llama.gguf",
            "models.llama-3.2-1b-instruct.gguf.files.0.file is invalid: '../Llama.gguf'."
            " Use a plain file name.",
        ),
        (
            "models.yml",
            "repository: bartowski/Llama-3.2-1B-Instruct-GGUF",
            "repository: https://huggingface.co/bartowski/Llama",
            "models.llama-3.2-1b-instruct.gguf.repository is invalid:"
            " 'https://huggingface.co/bartowski/Llama'. Use OWNER/NAME.",
        ),
        (
            "models.yml",
            "  llama-3.2-1b-instruct:\n",
            "  llama/3.2:\n",
            "models.llama/3.2 is invalid: 'llama/3.2'. Use a plain file name.",
        ),
        (
            "models.yml",
            "    task: embedding\n",
            "    task: embed\n",
            "models.nomic-embed-text-v1.5.task is invalid: 'embed'."
            " Use 'chat', 'embedding' or 'rerank'.",
        ),
        (
            "models.yml",
            "    task: embedding\n",
            "    abilities: [tools]\n    task: embedding\n",
            "models.nomic-embed-text-v1.5.abilities is invalid: a list."
            " Remove the key, which is for chat models.",
        ),
        (
            "models.yml",
            "    task: embedding\n",
            "    proof: {prompt: a, answer: b}\n    task: embedding\n",
            "models.nomic-embed-text-v1.5.proof is invalid: a dict."
            " Remove the key, which is for chat models.",
        ),
        (
            "engines.yml",
            "{parallel: 1, context: 2048}",
            "{parallel: 0}",
            "engines.ollama.tasks.embedding.parallel is invalid: 0. Use a whole number from 1 up.",
        ),
        (
            "engines.yml",
            "kind: jetson",
            "kind: nano",
            "engines.llamacpp.images.0.kind is invalid: 'nano'. Use 'jetson', 'pi' or 'generic'.",
        ),
        (
            "engines.yml",
            'l4t: ["38.0", "40.0"]',
            'l4t: ["38.0"]',
            "engines.llamacpp.images.0.l4t is invalid: a list. Use two versions: the first that"
            " is supported, and the first that is not.",
        ),
        (
            "engines.yml",
            "key: true",
            "key: 7",
            "engines.llamacpp.key is invalid: 7. Use true or false.",
        ),
        (
            "engines.yml",
            "environment:\n      OLLAMA_HOST: 127.0.0.1:${ENGINE_PORT}",
            "environment:\n      OLLAMA_HOST: 0.0.0.0:8080",
            "engines.ollama.environment is invalid: a dict. Have the engine listen at 127.0.0.1,"
            " port ${ENGINE_PORT}, here or in command.",
        ),
        (
            "engines.yml",
            "digest: sha256:9d2e",
            "digest: 9d2e",
            "api.digest is invalid:"
            " '9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285'."
            " Use sha256: and 64 hexadecimal digits.",
        ),
        (
            "boards.yml",
            '"32.1": "10.0"',
            '"32.1": ten',
            "cuda.32.1 is invalid: 'ten'. Use a version such as 36.4.",
        ),
        (
            "boards.yml",
            "Jetson Nano: []",
            "Jetson Nano: none",
            "cpus.Jetson Nano is invalid: 'none'. Use a list.",
        ),
    ],
)
def test_an_invalid_entry_is_named_with_file_line_and_key(
    folder: Path, name: str, old: str, new: str, message: str
) -> None:
    line = changed_file(folder, name, old, new)
    assert read(str(folder))["problems"] == [f"{name}, line {line}: {message}"]


def test_a_feature_that_no_rule_knows(folder: Path) -> None:
    changed_file(folder, "boards.yml", "Jetson Orin NX: [asimddp]", "Jetson Orin NX: [dotprod]")
    (problem,) = read(str(folder))["problems"]
    assert (
        "cpus.Jetson Orin NX.0 is invalid: 'dotprod'. Use amx_int8, amx_tile, asimddp," in problem
    )


def test_keys_that_are_missing_or_unknown(folder: Path) -> None:
    line = changed_file(folder, "models.yml", "      kv_heads: 8\n", "      kv_head: 8\n")
    shape = "models.llama-3.2-1b-instruct.shape"
    assert read(str(folder))["problems"] == [
        f"models.yml, line {line - 4}: {shape}.kv_heads is missing. Add the key.",
        f"models.yml, line {line}: {shape}.kv_head is invalid: the schema has no key of this name."
        " Correct the name, or remove the key.",
    ]


def test_all_problems_of_all_files_are_reported(folder: Path) -> None:
    changed_file(folder, "models.yml", "layers: 16", "layers: many")
    changed_file(folder, "models.yml", "layers: 28", "layers: more")
    changed_file(folder, "boards.yml", "architectures:", "architecture:")
    places = [each.partition(",")[0] for each in read(str(folder))["problems"]]
    assert places == ["models.yml", "models.yml", "boards.yml", "boards.yml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [\n", "models.yml, line 2 is invalid: "),
        ("", "models.yml: the file is invalid: None. Use a mapping."),
        ("- models\n", "models.yml, line 1: the file is invalid: a list. Use a mapping."),
        ("models: 1\n", "models.yml, line 1: models is invalid: 1. Use a mapping."),
    ],
)
def test_a_file_of_another_kind(folder: Path, text: str, message: str) -> None:
    (folder / "models.yml").write_text(text)
    (problem,) = read(str(folder))["problems"]
    assert problem.startswith(message)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    assert read_file(tmp_path / "boards.yml") == (
        {},
        [
            f"boards.yml is missing: {tmp_path}/boards.yml cannot be read (No such file or"
            " directory). Set board_catalogue_dir to a folder that has the file."
        ],
    )


def test_the_plan_refuses_an_invalid_catalogue(
    jetson: dict[str, Any], catalogues: dict[str, Any], changed: Change, folder: Path
) -> None:
    """With the line where the files were read here, and the problems of the settings beside it."""
    wrong = changed(catalogues, "engines.ollama.process", "64 MiB")
    problem = "engines.ollama.process is invalid: '64 MiB'. Use a whole number."
    assert deployment_plan(jetson, "orin", {}, wrong) == {
        "problems": [f"orin: engines.yml: {problem}"]
    }
    line = changed_file(folder, "engines.yml", "process: 62914560", "process: 64 MiB")
    plan = deployment_plan(jetson, "orin", {"llm_parallel": 0}, read(str(folder)))
    assert plan["problems"] == [
        "orin: llm_parallel is invalid: 0. Use a whole number from 1 to 64.",
        f"orin: engines.yml, line {line}: {problem}",
    ]
