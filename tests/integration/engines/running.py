"""Engines that run for the tests: the sandbox's images, started as docker-compose.yml would.

What a test sees of an engine is `EngineUnderTest`. An engine is a module of this folder, named as
LLM_PROVIDER names it, whose ENGINE is a class of that protocol: a further one needs no other line.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import ipaddress
import json
import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from inspect import getsource
from pathlib import Path
from typing import Any, ClassVar, Protocol

import yaml

from edge_fleet.plan.build import deployment_plan
from edge_fleet.weight_distribution import weights
from edge_host.weights.store import update_store
from sandbox import docker, images, models, shapes, smoke_model, source
from sandbox.images import content_tag
from sandbox.instance import CACHE, ROOT
from sandbox.smoke_encoder import EMBEDDING, RERANK
from tests.integration.engines.cpus import CpuClass, this_machine
from tests.unit.edge_fleet.conftest import JETSON
from tests.unit.project.test_templates import compose, env

HOME = CACHE / "engines"
"""Stands for a board's /opt/edge-llm: its models/ and secrets/."""
CHAINS = {
    chain.name: chain
    for chain in (smoke_model.SMOKE, smoke_model.TOOLS, smoke_model.UNICODE, smoke_model.ENDLESS)
}
_SHAPE = {"context_trained": shapes.CONTEXT, "vocabulary": 4096, "head_size": 64}
SHAPES: dict[str, dict[str, int]] = {
    "grouped": _SHAPE
    | {"layers": 16, "embedding": 512, "heads": 8, "kv_heads": 2, "feed_forward": 1536},
    "ungrouped": _SHAPE
    | {"layers": 8, "embedding": 768, "heads": 12, "kv_heads": 12, "feed_forward": 2048},
    "wordy": _SHAPE
    | {"layers": 4, "embedding": 256, "heads": 4, "kv_heads": 2, "feed_forward": 1024}
    | {"vocabulary": 131072},
    "deep": _SHAPE
    | {"layers": 48, "embedding": 256, "heads": 4, "kv_heads": 4, "feed_forward": 768},
    "wide": _SHAPE
    | {"layers": 2, "embedding": 2048, "heads": 16, "kv_heads": 4, "feed_forward": 5632}
    | {"head_size": 128},
    "tied": _SHAPE
    | {"layers": 16, "embedding": 512, "heads": 8, "kv_heads": 2, "feed_forward": 1536}
    | {"vocabulary": 32768},
}
"""Models with random weights that differ in what the memory of serving them depends on."""
TIED = frozenset({"tied"})
"""Those whose output layer is their embedding table, which some CPUs keep twice then."""
QUANTIZATIONS = ("Q4_0", "Q4_K_M", "Q6_K", "F16")
VARIANTS = {
    f"{shape}-{quantization.lower()}": (shape, quantization)
    for shape in SHAPES
    for quantization in QUANTIZATIONS
}
"""The same with weights of another type, by the model's name: llama-quantize makes them."""
REAL = "smollm2-135m"
MODELS = (*CHAINS, REAL)
READY_SECONDS = 300.0
"""How long an engine may take to load: vLLM's programs alone take half a minute of two cores."""
_PREFIX = "edge-llm-conf-"
_MISSING = "run `python -m sandbox images` first: it makes what is not there."


class EngineUnderTest(Protocol):
    """An engine with one model, and what differs between engines as far as tests must know."""

    provider: ClassVar[str]
    models: ClassVar[frozenset[str]]
    """Those of MODELS that it can serve: tests that need others are not for it."""
    unsupported: ClassVar[Mapping[str, Any]]
    """Fields of a chat body, each with a value, that it would ignore: asking is an error."""
    overflow: ClassVar[str]
    """A pattern in its own words for a prompt that is longer than the context."""
    malformed: ClassVar[str]
    """A pattern in its own words for a message whose content is a number."""
    schema: ClassVar[str]
    """A pattern in its own words for a schema that asks for a type that there is not."""
    embeddings: ClassVar[str]
    """A pattern in its own words for embeddings asked of a model that is not served for them."""

    model: str
    task: str
    """What the model is for, as models.yml has it."""
    base_url: str
    key_file: Path | None
    context: int
    parallel: int

    def __init__(self, model: str, context: int, parallel: int) -> None: ...

    def start(self) -> None:
        """Start it, for the first time or again, and return at once: it is not ready yet."""

    def kill(self) -> None:
        """End it as a crash does."""

    def remove(self) -> None:
        """End it, and leave nothing behind."""

    def logs(self) -> str:
        """What it has written so far."""

    def busy(self) -> int:
        """How many requests it works on at this moment, by its own account."""


def engine(name: str) -> type[EngineUnderTest]:
    """The engine of that name."""
    found: type[EngineUnderTest] = importlib.import_module(
        f"tests.integration.engines.{name}"
    ).ENGINE
    return found


def settings_of(running: EngineUnderTest) -> dict[str, str]:
    """What the chat API's environment, or LLM_ENGINE_FILE, says of an engine."""
    found = {
        "LLM_TASK": running.task,
        "LLM_PROVIDER": running.provider,
        "LLM_BASE_URL": running.base_url,
        "LLM_MODEL": running.model,
        "CTX_SIZE": str(running.context),
        "PARALLEL": str(running.parallel),
    }
    if running.key_file:
        found["LLM_API_KEY_FILE"] = str(running.key_file)
    return found


def free_port() -> int:
    """A port that nobody listens on at this moment, at any address of this machine."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


class Container:
    """An engine in a container, with what engines.yml and the stack's template give it."""

    provider: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    """Options of `docker run` besides."""

    def __init__(
        self,
        model: str,
        context: int,
        parallel: int,
        cpu: CpuClass | None = None,
        **settings: object,
    ) -> None:
        self.model, self.context, self.parallel = model, context, parallel
        cpu = cpu or this_machine()
        self.name = f"{_PREFIX}{self.provider}-{model}-{parallel}x{context}"
        address = f"{_host()}:{free_port()}"
        self.base_url = f"http://{address}"
        catalogues = _catalogues(*({model} & (SHAPES.keys() | VARIANTS.keys())))
        self.weights(catalogues["models"][model])
        given = {
            "llm_provider": self.provider,
            "llm_model": model,
            "llm_image": self.image(),
            "llm_context_size": context,
            "llm_parallel": parallel,
            # Threads wait for each other by spinning: it takes minutes where others need the CPUs.
            "llm_threads": 1,
            **settings,
        }
        self.plan = plan = _plan(given, catalogues, cpu)
        self.task = str(plan["model"]["task"])
        self.key_file = _key() if plan["engine"]["key"] else None
        if plan["provider"] == "ollama":
            _offer(plan["model"])
        self.words = [
            *cpu.volumes(self.image(), HOME / "backends"),
            *self.options,
            *_words(
                compose(plan)["services"]["engine-a"], env(plan) | {"ENGINE_PORT": _PORT}, address
            ),
        ]

    def image(self) -> str:
        """A reference to its image, which is there."""
        return images.table(source.decide())[self.provider].reference

    def weights(self, entry: dict[str, Any]) -> None:
        """Have a model in HOME, as `entry`, its place in models.yml, says then."""
        (weights,) = entry["gguf"]["files"]
        file = HOME / "models" / weights["file"]
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            os.link(models.place(entry["gguf"] | weights), file)

    def start(self) -> None:
        if docker.inspect("container", self.name) is None:
            docker.docker("run", "--detach", f"--name={self.name}", *self.words)
        else:
            docker.docker("start", self.name)

    def kill(self) -> None:
        docker.docker("kill", self.name)

    def remove(self) -> None:
        if docker.inspect("container", self.name) is not None:
            docker.docker("rm", "--force", "--volumes", self.name)

    def logs(self) -> str:
        both = subprocess.run(
            ["docker", "logs", self.name], capture_output=True, text=True, check=True
        )
        return both.stdout + both.stderr


def _host() -> str:
    """The address of this machine at which engines are published.

    At 127.0.0.1 Docker itself takes connections, and breaks them while the engine does not listen;
    here the engine's machine refuses them, as it does those of the chat API's container.
    """
    # An engine that has just been started for the first time does not tell its gateway.
    template = "{{with index .IPAM.Config 0}}{{.Subnet}} {{.Gateway}}{{end}}"
    subnet, *gateway = docker.docker("network", "inspect", "bridge", f"--format={template}").split()
    return gateway[0] if gateway else str(next(ipaddress.ip_network(subnet).hosts()))


def missing() -> str | None:
    """What of the sandbox the containers need and is not there, as a sentence; None: nothing."""
    if not docker.answers():
        return f"No Docker engine answers: {_MISSING}"
    table = images.table(source.decide())
    for name in ("llamacpp", "ollama"):
        if not table[name].there:
            return f"The image {table[name].reference} is not there: {_MISSING}"
    for name in (REAL, *(each.name for each in (smoke_model.SMOKE, EMBEDDING, RERANK))):
        for entry in models.entries(name, "gguf"):
            if not models.place(entry).exists():
                return f"{models.place(entry)} is not there: {_MISSING}"
    return None


def _catalogues(*shaped: str) -> dict[str, Any]:
    """The project's, with the chain models of the tests among the models, and some of SHAPES."""
    merged: dict[str, Any] = {}
    for name in ("models", "engines", "boards"):
        merged |= yaml.safe_load((ROOT / f"{name}.yml").read_text(encoding="utf-8"))
    smoke = merged["models"][smoke_model.SMOKE.name]
    for name in [*(CHAINS.keys() - merged["models"].keys()), *shaped]:
        entry = copy.deepcopy(smoke)
        if name in CHAINS:
            file = _chain_file(name)
        else:
            shape, quantization = VARIANTS.get(name, (name, "Q8_0"))
            entry["shape"] = SHAPES[shape]
            entry["gguf"]["quantization"] = quantization
            file = _shape_file(shape) if name == shape else _variant_file(shape, quantization)
        entry["gguf"]["files"] = [
            {
                "file": file.name,
                "size": file.stat().st_size,
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            }
        ]
        merged["models"][name] = entry
    return merged


def _chain_file(name: str) -> Path:
    """A chain model's file, written where it is not there as this writer writes it."""
    file = HOME / "models" / f"{name}.gguf"
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".partial")
    CHAINS[name].write(fresh)
    if file.exists() and file.read_bytes() == fresh.read_bytes():
        fresh.unlink()
    else:
        fresh.rename(file)
    return file


def _shape_file(name: str) -> Path:
    """A model of a shape, written where it is not there as this writer writes it."""
    writers = {each.__name__: getsource(each).encode() for each in (shapes, smoke_model)}
    tag = content_tag(writers, json.dumps([SHAPES[name], name in TIED]))
    file = HOME / "models" / f"{name}-{tag}.gguf"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        shapes.write(file.with_suffix(".partial"), SHAPES[name], tied=name in TIED)
        file.with_suffix(".partial").rename(file)
    return file


def _variant_file(name: str, quantization: str) -> Path:
    """A model of a shape with weights of another type, made where it is not there yet."""
    source_file = _shape_file(name)
    image = images.table(source.decide())["llamacpp"].reference
    tag = content_tag({"image": image.encode()}, quantization)
    file = source_file.with_name(f"{source_file.stem}-{quantization}-{tag}.gguf")
    if not file.exists():
        fresh = file.with_suffix(".partial")
        docker.docker(
            "run",
            "--rm",
            f"--user={os.getuid()}:{os.getgid()}",
            f"--volume={file.parent.resolve()}:/models",
            "--entrypoint=llama-quantize",
            image,
            "--allow-requantize",
            f"/models/{source_file.name}",
            f"/models/{fresh.name}",
            quantization,
        )
        fresh.rename(file)
    return file


def _plan(given: Mapping[str, object], catalogues: dict[str, Any], cpu: CpuClass) -> dict[str, Any]:
    """The plan of a generic host that is this machine, with an image that it has."""
    state = copy.deepcopy(JETSON)
    state["board"] |= {
        "kind": "generic",
        "model": None,
        "arch": platform.machine(),
        "l4t": None,
        "cpus": os.cpu_count(),
        "cpu_features": sorted(cpu.features),
    }
    state["deployment"]["images"] = [given["llm_image"]]
    plan = deployment_plan(state, "this machine", dict(given), catalogues, root=str(HOME))
    assert plan["problems"] == []
    return plan


def _offer(model: Mapping[str, Any]) -> None:
    """Show Ollama a plan's model, as the board's store does."""
    (file,) = weights(model)
    about = {key: model[key] for key in ("name", "family", "quantization")}
    update_store(root=str(HOME / "models"), files=[file], ollama=[file | about])


def _key() -> Path:
    """A key for engines that take one."""
    file = HOME / "secrets" / "engine_key"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(os.urandom(20).hex() + "\n", encoding="ascii")
        # The containers' user must read it, and only root could make it that user's own.
        file.chmod(0o644)
    return file


_NOT_NEEDED = {
    *("container_name", "healthcheck", "image", "logging", "network_mode", "restart"),
    "stop_grace_period",
}
_PORT = "8080"


def _words(service: Mapping[str, Any], values: Mapping[str, str], address: str) -> list[str]:
    """What `docker run` is told, from a service of the compose file and the host's .env."""

    def filled(text: object) -> str:
        # As compose does: $$ is a $.
        found = re.sub(
            r"\$\$|\$\{(\w+)\}", lambda name: values[name[1]] if name[1] else "$", str(text)
        )
        # The tests are not in the engine's network namespace: its port is published for them. What
        # a process knows as its own address stays.
        listens = re.fullmatch(rf"(--host=)?127\.0\.0\.1(:{_PORT})?", found)
        return found.replace("127.0.0.1", "0.0.0.0") if listens else found

    words = [f"--publish={address}:{_PORT}"]
    for key, value in service.items():
        if key == "user":
            words.append(f"--user={value}")
        elif key == "read_only":
            words += ["--read-only"] if value else []
        elif key == "cap_drop":
            words += [f"--cap-drop={each}" for each in value]
        elif key == "security_opt":
            words += [f"--security-opt={each}" for each in value]
        elif key == "tmpfs":
            words += [f"--tmpfs={each}" for each in value]
        elif key == "environment":
            words += [
                f"--env={name}={each if name == 'VLLM_HOST_IP' else filled(each)}"
                for name, each in value.items()
            ]
        elif key == "volumes":
            for volume in value:
                place_ = (HOME / volume["source"]).resolve()
                words.append(f"--volume={place_}:{volume['target']}:ro")
        elif key == "shm_size":
            words.append(f"--shm-size={value}")
        elif key == "mem_limit":
            words.append(f"--memory={value}")
        elif key == "pids_limit":
            words.append(f"--pids-limit={value}")
        elif key == "ulimits":
            words += [f"--ulimit={name}={each}" for name, each in value.items()]
        elif key == "entrypoint":
            words.append(f"--entrypoint={value[0]}")
        else:
            assert key in _NOT_NEEDED | {"command"}, f"The template's {key} is not known here."
    command = [*service.get("entrypoint", [])[1:], *service["command"]]
    return [*words, filled(service["image"]), *(filled(each) for each in command)]
