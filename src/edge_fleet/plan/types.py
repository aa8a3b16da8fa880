"""The plan: an immutable description of one host's deployment, and its form for Ansible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from edge_fleet.known_issues import KnownIssues
from edge_fleet.plan.chat_api import ChatApi
from edge_fleet.plan.docker import Registries
from edge_fleet.setting_types import plain
from edge_fleet.text import Problem
from edge_host.constants import REGISTRY_PORT

# vLLM's cache comes in blocks of up to 128 tokens, and one of them is its own.
_SPARE_TOKENS = 256
# Bytes for a model that keeps none: vLLM reads 0 as no figure, and measures by itself.
_NO_CACHE = 1024 * 1024


@dataclass(frozen=True)
class EngineOptions:
    """The settings of the engine, with those that the board decides."""

    provider: str
    context_size: int
    parallel: int
    gpu_layers: int
    gpu_required: bool
    threads: int
    batch_size: int
    ubatch_size: int
    cache_type: str
    flash_attention: str

    def with_settings(self, changed: Mapping[str, Any]) -> EngineOptions:
        """The options with other values of llm_* variables."""
        return replace(self, **{name.removeprefix("llm_"): each for name, each in changed.items()})


@dataclass(frozen=True)
class MemoryParts:
    """Bytes of memory that serving a model needs, by part."""

    weights: int
    repacking: int
    kv_cache: int
    compute: int
    engine: int
    system: int

    @property
    def total(self) -> int:
        return (
            self.weights + self.repacking + self.kv_cache + self.compute + self.engine + self.system
        )

    def parts(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class ModelFile:
    """A file of a model: its name at the source, its path below the host's models folder, and
    where the source has it (`place`).
    """

    name: str
    path: str
    size: int
    sha256: str
    part: str
    place: str


@dataclass(frozen=True)
class Model:
    """The model that a host serves. `bundle` names these very files, wherever they are."""

    name: str
    task: str
    bundle: str
    digest: str
    files: tuple[ModelFile, ...]
    family: str
    quantization: str
    shape: Mapping[str, int]
    # What a GGUF file's header must have.
    header: Mapping[str, Any]
    # Paths in the engine's container.
    path: str
    projector: str
    # Whether it takes images.
    vision: bool
    proof: Mapping[str, str | None]
    present: bool

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Sources:
    """Where weights come from, and which of those on the host stay."""

    mirror: str
    cache: str
    port: int
    keep: int | None
    rehash: bool


@dataclass(frozen=True)
class Images:
    """The images as the host pulls them; `upstream` has the original of each mirrored one."""

    engine: str
    api_base: str
    registry: str
    cache: str | None
    upstream: Mapping[str, str]


@dataclass(frozen=True)
class Engine:
    """How the engine's container runs."""

    command: tuple[str, ...]
    entrypoint: tuple[str, ...] | None
    variables: Mapping[str, str]
    healthcheck: tuple[str, ...]
    shm_size: str | None
    # Whether the engine has a key of its own.
    key: bool
    flash_attention: str
    memory_limit: int
    # Threads count as processes.
    pids_limit: int


@dataclass(frozen=True)
class Gpu:
    """How the engine reaches the GPU; `layers_of_model` includes the output layer."""

    layers_of_model: int
    runtime: str | None
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Docker:
    """Packages to install, and the options of /etc/docker/daemon.json that are this plan's."""

    packages: tuple[str, ...]
    daemon_json: Mapping[str, Any]
    registries: Registries


@dataclass(frozen=True)
class Plan:
    """One host's deployment."""

    host: str
    root: str
    url: str
    # Whether the chat API serves HTTPS.
    tls: bool
    # Where the chat API listens; empty for all addresses.
    listen_address: str
    rollout: tuple[int | str, ...]
    kind: str
    board: str
    # The architecture as containers name it.
    architecture: str
    l4t: Mapping[str, str | None] | None
    options: EngineOptions
    aliases: tuple[str, ...]
    model: Model
    sources: Sources
    images: Images
    engine: Engine
    chat_api: ChatApi
    gpu: Gpu
    memory: MemoryParts
    docker: Docker
    known_issues: KnownIssues

    def dotenv(self) -> dict[str, str | int]:
        """The host's .env, in the order in which a person reads it."""
        options, size = self.options, self.options.context_size
        listen = {"LLM_LISTEN_ADDRESS": self.listen_address} if self.listen_address else {}
        projector = {"MMPROJ_PATH": self.model.projector} if self.model.projector else {}
        return {
            "LLM_PROVIDER": options.provider,
            "LLM_MODEL": self.model.name,
            "MODEL_PATH": self.model.path,
            **projector,
            "CTX_SIZE": size,
            "N_GPU_LAYERS": options.gpu_layers,
            "THREADS": options.threads,
            "PARALLEL": options.parallel,
            "CTX_TOTAL": size * options.parallel,
            "BATCH": options.batch_size,
            "UBATCH": options.ubatch_size,
            "FLASH_ATTENTION": self.engine.flash_attention,
            "CACHE_TYPE": options.cache_type,
            "KV_CACHE_BYTES": self.memory.kv_cache // size * (size + _SPARE_TOKENS) or _NO_CACHE,
            "LLM_MODEL_ALIASES": ",".join(self.aliases),
            "HARDWARE": self.kind,
            "ENGINE_IMAGE": self.images.engine,
            # For no container: here, another address makes another release.
            **listen,
        }


def freeze(value: Any) -> Any:
    """A copy of a value in which no container can be changed."""
    if isinstance(value, Mapping):
        return MappingProxyType({name: freeze(each) for name, each in value.items()})
    return tuple(map(freeze, value)) if isinstance(value, list | tuple) else value


def render(plan: Plan) -> dict[str, Any]:
    """The plan as roles and templates read it, and as a release keeps it.

    Programs on hosts read releases of older and newer versions: provider, model, gpu, memory,
    environment, api, network and engine keep their names.
    """
    model, options, images = plan.model, plan.options, plan.images
    rendered: dict[str, Any] = {
        "problems": list[Problem](),
        "host": plan.host,
        "root": plan.root,
        "url": plan.url,
        "rollout": plan.rollout,
        "sources": asdict(plan.sources),
        "images": {
            "cache": images.cache,
            "registry": images.registry,
            "port": REGISTRY_PORT,
            "outside": images.upstream,
        },
        "provider": options.provider,
        "board": plan.board,
        "l4t": plan.l4t,
        "model": {
            "name": model.name,
            "task": model.task,
            # How many numbers a vector has.
            "dimensions": model.shape["embedding"] if model.task == "embedding" else None,
            "bundle": model.bundle,
            "files": [asdict(file) for file in model.files],
            "size": model.size,
            "digest": model.digest,
            "family": model.family,
            "quantization": model.quantization,
            "header": model.header,
            "proof": model.proof,
            "present": model.present,
        },
        "engine": {
            "image": images.engine,
            "entrypoint": plan.engine.entrypoint,
            "shm_size": plan.engine.shm_size,
            "command": plan.engine.command,
            "variables": plan.engine.variables,
            "healthcheck": plan.engine.healthcheck,
            "key": plan.engine.key,
            "memory_limit": plan.engine.memory_limit,
            "pids_limit": plan.engine.pids_limit,
        },
        "gpu": {
            "layers": options.gpu_layers,
            "of": plan.gpu.layers_of_model,
            "required": options.gpu_required,
            "runtime": plan.gpu.runtime,
            "groups": plan.gpu.groups,
        },
        "api": {
            "base_image": images.api_base,
            "architecture": plan.architecture,
            "tls": plan.tls,
            "listen_address": plan.listen_address,
            "environment": plan.chat_api.environment,
            "memory_limit": plan.chat_api.memory_limit,
            "pids_limit": plan.chat_api.pids_limit,
        },
        # A host knows by this that engine and chat API share a network namespace.
        "network": {
            "memory_limit": plan.chat_api.network_memory,
            "pids_limit": plan.chat_api.network_pids_limit,
        },
        "memory": plan.memory.parts() | {"total": plan.memory.total},
        "docker": {
            "packages": plan.docker.packages,
            "daemon_json": plan.docker.daemon_json,
            "registries": asdict(plan.docker.registries),
        },
        "known_issues": {
            "notices": plan.known_issues.notices,
            "fixes": plan.known_issues.fixes,
            "reboot": plan.known_issues.reboot,
            "may_reboot": plan.known_issues.may_reboot,
        },
        "environment": plan.dotenv(),
    }
    return dict(plain(rendered))
