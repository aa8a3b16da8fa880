"""The catalogues models.yml, engines.yml and boards.yml: their schemas, and how they are read.

A message about an invalid entry names the file, the line (if the file was read here) and the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from edge_fleet.setting_types import CacheType, EngineName, TaskName, plain
from edge_fleet.text import Problem
from edge_host.constants import CPU_FEATURES

Key = tuple[int | str, ...]
ENGINE_PORT = "${ENGINE_PORT}"
"""Stands for the port of the slot in which an engine runs."""


def _pattern(pattern: str, advice: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise PydanticCustomError("pattern", "Use {advice}", {"advice": advice})
        return value

    return AfterValidator(check)


def _feature(value: str) -> str:
    if value not in CPU_FEATURES:
        raise PydanticCustomError(
            "feature", "Use {names}", {"names": ", ".join(sorted(CPU_FEATURES))}
        )
    return value


def _pair(value: list[str]) -> list[str]:
    if len(value) != 2:
        raise PydanticCustomError(
            "pair", "Use two versions: the first that is supported, and the first that is not"
        )
    return value


Text = Annotated[str, Field(min_length=1)]
# A file's name becomes a path on the host and a part of a URL.
FileName = Annotated[str, _pattern(r"[A-Za-z0-9][A-Za-z0-9._-]*", "a plain file name")]
Repository = Annotated[
    str, _pattern(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*", "OWNER/NAME")
]
Sha256 = Annotated[str, _pattern(r"[0-9a-f]{64}", "64 hexadecimal digits in lower case")]
Digest = Annotated[str, _pattern(r"sha256:[0-9a-f]{64}", "sha256: and 64 hexadecimal digits")]
Version = Annotated[str, _pattern(r"\d+(\.\d+){0,2}", "a version such as 36.4")]
Bounds = Annotated[list[Version], AfterValidator(_pair)]
Size = Annotated[int, Field(ge=1)]
Feature = Annotated[str, AfterValidator(_feature)]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class WeightsFile(_Entry):
    """A file of a model. Without size and sha256 the model is refused until `make lock`."""

    file: FileName
    size: Size | None = None
    sha256: Sha256 | None = None
    part: Literal["weights", "projector"] = "weights"


class Weights(_Entry):
    """The weights of a model in one format."""

    repository: Repository
    revision: Text | None = None
    quantization: Text
    family: Text
    gated: bool = False
    files: Annotated[list[WeightsFile], Field(min_length=1)]


class Shape(_Entry):
    """What the memory estimate needs to know about a model."""

    layers: Size
    embedding: Size
    heads: Size
    kv_heads: Size
    head_size: Size
    feed_forward: Size
    vocabulary: Size
    context_trained: Size


class KnownAnswer(_Entry):
    """A question with its only answer at temperature 0."""

    prompt: Text
    answer: Text


class Model(_Entry):
    """An entry of models.yml. Abilities and a known answer are for chat models."""

    title: Text
    licence: Text
    task: TaskName = "chat"
    abilities: list[Literal["chat", "tools", "vision"]] = []
    public: bool = True
    shape: Shape
    proof: KnownAnswer | None = None
    gguf: Weights | None = None
    hf: Weights | None = None

    @field_validator("abilities", "proof")
    @classmethod
    def _of_chat(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("task") not in (None, "chat"):
            advice = "Remove the key, which is for chat models"
            raise PydanticCustomError("of_chat", "{advice}", {"advice": advice})
        return value


class Image(_Entry):
    """An image. Without a digest it is refused until `make lock`."""

    image: Text
    digest: Digest | None = None


class EngineImage(Image):
    """A row of an engine's image table: the hosts that it fits, and its own rules."""

    kind: Literal["jetson", "pi", "generic"] | None = None
    arch: Text | None = None
    gpu: bool | None = None
    l4t: Bounds | None = None
    entrypoint: list[Text] | None = None
    context: Literal["pool", "slot"] | None = None
    outputs: Literal["batch", "slots"] | None = None
    cache_types: list[CacheType] | None = None
    repacks: bool | None = None
    tasks: list[TaskName] | None = None
    command: list[Text] | None = None
    environment: dict[str, str] | None = None


class EngineTask(_Entry):
    """What an engine is started with for a task, besides, and its limits there: requests at the
    same time, and tokens of one input.
    """

    command: list[Text] = []
    environment: dict[str, str] = {}
    parallel: Size | None = None
    context: Size | None = None


class Ubatch(_Entry):
    """The micro-batch that an engine chooses from so many tokens of all slots on."""

    tokens: Size
    size: Size


class Engine(_Entry):
    """An entry of engines.yml."""

    weights: Literal["gguf", "hf"]
    context: Literal["pool", "slot"]
    process: Size
    outputs: Literal["batch", "slots"] = "slots"
    repacks: bool = False
    ubatch: list[Ubatch] | None = None
    cache_types: list[CacheType]
    flash_attention: dict[Literal["auto", "on", "off"], str]
    command: list[Text]
    entrypoint: list[Text] | None = None
    key: bool
    environment: dict[str, str]
    projector: dict[str, str] = {}
    tasks: dict[TaskName, EngineTask] = {"chat": EngineTask()}
    shm_size: Text | None = None
    healthcheck: list[Text]
    images: list[EngineImage]

    @field_validator("environment")
    @classmethod
    def _with_port(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if not any(
            ENGINE_PORT in each for each in (*info.data.get("command", ()), *value.values())
        ):
            raise PydanticCustomError(
                "with_port",
                "Have the engine listen at 127.0.0.1, port {port}, here or in command",
                {"port": ENGINE_PORT},
            )
        return value


class Packages(_Entry):
    """The packages of a system's archive that have Docker and its compose plugin."""

    docker: list[Text]
    compose: list[Text]


class ModelsFile(_Entry):
    """models.yml."""

    models: dict[FileName, Model]


class Monitoring(_Entry):
    """The images of the fleet's monitoring."""

    prometheus: Image
    alertmanager: Image
    grafana: Image
    node_exporter: Image


class EnginesFile(_Entry):
    """engines.yml. Files of earlier versions have no monitoring."""

    api: Image
    registry: Image
    monitoring: Monitoring | None = None
    engines: dict[EngineName, Engine]


class BoardsFile(_Entry):
    """boards.yml."""

    architectures: dict[Text, Text]
    cpus: dict[Text, list[Feature]]
    l4t: Bounds
    jetpack: dict[Version, Text]
    cuda: dict[Version, Version]
    systems: dict[Text, dict[Text, Packages]]


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ADVICE = {
    "bool_type": "Use true or false",
    "dict_type": "Use a mapping",
    "greater_than_equal": "Use a whole number from 1 up",
    "int_type": "Use a whole number",
    "list_type": "Use a list",
    "model_type": "Use a mapping",
    "too_short": "Use a list that is not empty",
    "string_too_short": "Use text that is not empty",
    "string_type": "Use text",
}
"""Type of a validation error -> the advice in its message."""

SCHEMAS: Mapping[str, type[_Entry]] = {
    "models.yml": ModelsFile,
    "engines.yml": EnginesFile,
    "boards.yml": BoardsFile,
}


def read(folder: str) -> dict[str, Any]:
    """Return the combined content of the catalogues in a folder, and under `problems` a message
    for each invalid entry.
    """
    content: dict[str, Any] = {}
    problems: list[Problem] = []
    for name in SCHEMAS:
        found, invalid = read_file(Path(folder) / name)
        content |= found
        problems += invalid
    return content | {"problems": problems}


def read_file(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """Return the content of one catalogue, and a message for each invalid entry."""
    name = path.name
    try:
        text = path.read_text(encoding="utf-8")
        content, node = yaml.load(text, _LOADER), yaml.compose(text, _LOADER)  # noqa: S506 (a safe loader)
    except OSError as error:
        return {}, [
            f"{name} is missing: {path} cannot be read ({error.strerror})."
            " Set board_catalogue_dir to a folder that has the file."
        ]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        return {}, [f"{name}{line} is invalid: {error.problem}. Correct the YAML."]
    return content if isinstance(content, dict) else {}, _check(name, content, node)


def problems_of(catalogues: Mapping[str, Any]) -> list[Problem]:
    """A message for each invalid entry of the combined content of the catalogues."""
    if "problems" in catalogues:
        return list(map(str, catalogues["problems"]))
    found: list[Problem] = []
    for name, schema in SCHEMAS.items():
        part = {key: catalogues[key] for key in schema.model_fields if key in catalogues}
        found += _check(name, plain(part))
    return found


def _check(name: str, content: object, node: yaml.Node | None = None) -> list[Problem]:
    try:
        SCHEMAS[name].model_validate(content)
    except ValidationError as error:
        return [
            _message(name, each, _line(node, each["loc"]))
            for each in error.errors(include_url=False)
        ]
    return []


def _message(name: str, error: ErrorDetails, line: int | None) -> Problem:
    place = name if line is None else f"{name}, line {line}"
    key = ".".join(str(each) for each in error["loc"] if each != "[key]") or "the file"
    if error["type"] == "missing":
        return f"{place}: {key} is missing. Add the key."
    if error["type"] == "extra_forbidden":
        return (
            f"{place}: {key} is invalid: the schema has no key of this name."
            " Correct the name, or remove the key."
        )
    found = error["input"]
    shown = f"a {type(found).__name__}" if isinstance(found, dict | list) else repr(found)
    advice = _ADVICE.get(error["type"], error["msg"].replace("Input should be", "Use"))
    return f"{place}: {key} is invalid: {shown}. {advice}."


def _line(node: yaml.Node | None, key: Key) -> int | None:
    """The line of a key, or of what it would be a part of."""
    if node is None:
        return None
    line = node.start_mark.line + 1
    for part in key:
        if isinstance(node, yaml.MappingNode):
            found = [each for each in node.value if each[0].value == str(part)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return int(line)
