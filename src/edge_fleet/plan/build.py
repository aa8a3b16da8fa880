"""Builds the plan: board facts, inventory settings and catalogues become the description of a
host's deployment, or the reasons why there can be none.

Pure functions: nothing here reads a file, a clock or a host. Sizes are bytes throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from edge_fleet.catalogue import problems_of
from edge_fleet.known_issues import diagnose
from edge_fleet.l4t import JETPACKS, l4t_of
from edge_fleet.plan.board import (
    board_problems,
    engine_options,
    listen_notices,
    listen_problems,
    lock_problems,
    port_problems,
)
from edge_fleet.plan.chat_api import ChatApi, address_problems, plan_chat_api
from edge_fleet.plan.docker import (
    INSECURE_REGISTRIES,
    daemon_json_wanted,
    daemon_option_problems,
    plan_registries,
)
from edge_fleet.plan.image import (
    engine_image,
    engine_rules,
    pinned,
    registry_authority,
    through_cache,
)
from edge_fleet.plan.memory import (
    LIMIT_STEP,
    MemoryEstimate,
    cache_type_problems,
    context_problems,
    cpu_features,
    gpu_problems,
    memory_problem,
    repacking,
)
from edge_fleet.plan.suggestions import other_models, what_fits
from edge_fleet.plan.task import (
    CHAT,
    chat_api_problems,
    task_options,
    task_problems,
    with_task,
)
from edge_fleet.plan.types import (
    Docker,
    Engine,
    EngineOptions,
    Gpu,
    Images,
    MemoryParts,
    Model,
    Plan,
    Sources,
    freeze,
    render,
)
from edge_fleet.plan.weights import disk_problems, plan_model, source_problems
from edge_fleet.settings import Settings, check_settings
from edge_fleet.text import Problem
from edge_host.constants import API_PORT, MIB, ROOT

ENGINE_SPARE = 384 * MIB
"""Memory of a board that its engine may never take."""
ENGINE_PIDS = 2048
"""Threads and processes of an engine. vLLM has the most: some processes, each with several threads
for every core. A Pi's kernel has numbers for 32768 on the whole board."""
# Ollama's image has CUDA libraries for these; JetPack 7 uses those of other machines.
OLLAMA_JETPACKS = ("5", "6")

NO_TLS: Mapping[str, Any] = MappingProxyType({"enabled": False, "problems": (), "notices": ()})


@dataclass(frozen=True)
class Request:
    """All that a plan is made from."""

    state: dict[str, Any]
    host: str
    variables: Mapping[str, Any]
    catalogues: dict[str, Any]
    root: str
    url: str | None
    images_cache: str | None
    # Whether a message about memory names changes that would fit.
    suggest: bool = True
    # What `tls.tls_decision` has decided.
    tls: Mapping[str, Any] = field(default_factory=lambda: NO_TLS)


def deployment_plan(
    state: dict[str, Any],
    host: str,
    variables: dict[str, Any],
    catalogues: dict[str, Any],
    root: str = ROOT,
    url: str | None = None,
    images_cache: str | None = None,
    suggest: bool = True,
    tls: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Decide everything about a host's deployment.

    Args:
        state: what the `host_info` module returned for the host.
        host: its inventory name, for the messages.
        variables: its variables that begin with llm_ or board_, as the inventory has them.
        catalogues: the content of models.yml, engines.yml and boards.yml in one dictionary (keys
            models, engines, api, registry, architectures, systems, cpus, l4t, jetpack, cuda), and
            `problems` where `catalogue.read` has validated it.
        root: the project's folder on the host.
        url: the address of its chat API for clients.
        images_cache: the address of the host that llm_images_cache names, None where it is unknown.
        suggest: whether a message about memory names changes that would fit.
        tls: what `tls.tls_decision` has decided about the host's certificate; None for a host
            without TLS.

    Returns:
        {"problems": [message, ...]} where nothing can be deployed, else the plan as `render` has
        it, with no problems.
    """
    plan, problems = None, problems_of(catalogues)
    if problems:
        problems = check_settings(variables)[1] + problems
    else:
        request = Request(
            state, host, variables, catalogues, root, url, images_cache, suggest, tls or NO_TLS
        )
        plan, problems = build(request)
    if plan is None:
        return {"problems": [f"{host}: {each}" for each in problems]}
    return render(plan)


def build(request: Request) -> tuple[Plan | None, list[Problem]]:
    """The plan, or the reasons why there is none."""
    state, catalogues = request.state, request.catalogues
    board, docker = state["board"], state["docker"]
    settings, problems = check_settings(request.variables)
    options = engine_options(settings, board)
    problems += board_problems(board, docker, catalogues)
    problems += lock_problems(state["deployment"]["lock"])
    problems += port_problems(state["ports"], docker)
    listen_address = settings.llm_listen_address or ""
    problems += listen_problems(listen_address, state.get("addresses"))
    problems += address_problems(settings, request.url)
    problems += daemon_option_problems(settings.board_docker_options, docker.get("swarm", False))
    problems += request.tls["problems"]
    row, image_problems = engine_image(
        settings.llm_image,
        options.provider,
        catalogues["engines"][options.provider],
        state,
        options.gpu_layers > 0,
    )
    rules = engine_rules(catalogues["engines"][options.provider], row)
    problems += source_problems(settings.llm_models_mirror, bool(settings.llm_models_token))
    of_task: list[Problem] = []
    images, more = _images(row.get("image", ""), settings, request)
    model, model_problems = plan_model(
        settings.llm_model,
        rules,
        options.provider,
        catalogues["models"],
        settings.llm_models_mirror,
        state["models"],
    )
    chat_api, limit_problems = plan_chat_api(settings, bool(model and model.vision))
    if model:
        of_task = task_problems(model, options.provider, rules, catalogues)
        of_task += chat_api_problems(model, state["deployment"]["release"])
        options, of_sizes = task_options(options, settings, model, rules)
        of_task += of_sizes
        rules = with_task(rules, model.task)
    gpu, of_gpu = _gpu(options, model, state)
    problems += limit_problems + more + image_problems + model_problems + of_task + of_gpu
    problems += cache_type_problems(options, rules)
    issues = diagnose(state, settings)
    notices = listen_notices(listen_address, state["ports"].get(str(API_PORT)))
    issues = replace(issues, notices=(*issues.notices, *request.tls["notices"], *notices))
    memory = None
    if model and options.cache_type in rules["cache_types"]:
        found = [*problems, *issues.problems]
        memory, of_memory = _memory(request, settings, options, rules, model, chat_api, found)
        problems += of_memory
    problems += issues.problems
    if model is None or memory is None or problems:
        return None, problems
    l4t = l4t_of(board["l4t"], catalogues)
    scheme = "https" if request.tls["enabled"] else "http"
    return Plan(
        host=request.host,
        root=request.root,
        url=request.url or f"{scheme}://{request.host}:{API_PORT}",
        tls=request.tls["enabled"],
        listen_address=listen_address,
        rollout=tuple(settings.llm_rollout),
        kind=board["kind"],
        board=board["model"] or board["kind"],
        architecture=catalogues["architectures"][board["arch"]],
        l4t=freeze(l4t),
        options=options,
        aliases=tuple(settings.llm_model_aliases),
        model=model,
        sources=_sources(settings),
        images=images,
        engine=_engine(row, rules, options, model, state),
        chat_api=chat_api,
        gpu=gpu,
        memory=memory,
        docker=_docker(gpu, images, settings, request),
        known_issues=issues,
    ), []


def _images(engine: str, settings: Settings, request: Request) -> tuple[Images, list[Problem]]:
    """Where the host pulls its images from: upstream, or the registry of llm_images_cache."""
    problems: list[Problem] = []
    chosen = {"api": settings.llm_api_base_image, "registry": settings.llm_registry_image}
    for name, own in chosen.items():
        row = request.catalogues[name]
        if not own and not row.get("digest"):
            problems.append(
                f"the {name} image is invalid: engines.yml has no digest for {row['image']}. Run"
                f" `make lock IMAGES={row['image']}`."
            )
        elif not own:
            chosen[name] = pinned(row)
    cache, address = settings.llm_images_cache, request.images_cache
    if cache and not address:
        problems.append(
            f"llm_images_cache is invalid: the inventory has no host {cache!r}. Use the name of a"
            " host of the inventory."
        )
    upstream = [engine, str(chosen["api"])]
    pulled = [through_cache(each, address if cache else None) for each in upstream]
    mirrored = {
        reference: original
        for reference, original in zip(pulled, upstream, strict=True)
        if reference != original
    }
    return Images(
        engine=pulled[0],
        api_base=pulled[1],
        registry=str(chosen["registry"]),
        cache=cache,
        upstream=freeze(mirrored),
    ), problems


def _gpu(
    options: EngineOptions, model: Model | None, state: dict[str, Any]
) -> tuple[Gpu, list[Problem]]:
    """How the engine reaches the GPU, and why the requested layers cannot be on it."""
    board, docker = state["board"], state["docker"]
    layers = options.gpu_layers
    all_layers = model.shape["layers"] + 1 if model else 0
    problems: list[Problem] = []
    runtime = "nvidia" if layers > 0 and board["kind"] != "pi" else None
    if layers > 0 and board["kind"] == "pi":
        problems.append(
            f"llm_gpu_layers is invalid: {layers}, and no engine uses a Pi's GPU. Use 0."
        )
    if runtime and not board["nvidia_runtime"] and runtime not in docker["runtimes"]:
        problems.append(
            "nvidia-container-runtime is missing: llm_gpu_layers requests the GPU, and the host"
            " does not have the runtime. Install nvidia-container-toolkit, or set llm_gpu_layers"
            " to 0."
        )
    if model and options.provider != "llamacpp" and 0 < layers < all_layers:
        problems.append(
            f"llm_gpu_layers does not fit: {layers}, and {options.provider} does not put a part of"
            f" a model's layers on the GPU. Use 0, or {all_layers} or more."
        )
    # A container's user that is not root reaches the GPU's devices by their groups.
    groups = tuple(board["gpu_groups"]) if runtime else ()
    return Gpu(layers_of_model=all_layers, runtime=runtime, groups=groups), problems


def _memory(
    request: Request,
    settings: Settings,
    options: EngineOptions,
    rules: dict[str, Any],
    model: Model,
    chat_api: ChatApi,
    found: list[Problem],
) -> tuple[MemoryParts, list[Problem]]:
    """The memory that serving the model needs, and why the host does not have it.

    `found` are the problems of the plan so far.
    """
    board, catalogues = request.state["board"], request.catalogues
    gpu = options.gpu_layers > 0
    # A GPU takes weights as they are. Where it is not required, the CPU may have to serve.
    on_gpu = gpu and options.gpu_required
    features = [] if on_gpu else cpu_features(board, catalogues["cpus"])
    repacked = repacking(catalogues["models"][model.name], rules, features)
    estimate = MemoryEstimate(
        dict(model.shape), model.size, rules, gpu, repacked, chat_api,
        family=model.family, whole=model.task != CHAT,
    )  # fmt: skip
    memory = estimate.of(options)
    too_long = context_problems(model, options.context_size)
    problems = too_long + gpu_problems(model, memory, board, options)
    problems += disk_problems(model, request.state, settings.llm_models_keep)
    known = {*found, *problems}

    def works(changed: dict[str, object]) -> bool:
        variables = {**request.variables, **changed}
        _, others = build(replace(request, variables=variables, suggest=False))
        return known.issuperset(others)

    if memory.total > board["memory_total"] and not too_long:
        problem = memory_problem(model, memory, board, options)
        if request.suggest:
            models = other_models(catalogues["models"], rules, gpu, features, model.task)
            problem += what_fits(estimate, board, options, models, works)
        problems.append(problem)
    return memory, problems


def _sources(settings: Settings) -> Sources:
    return Sources(
        mirror=settings.llm_models_mirror.rstrip("/"),
        cache=settings.llm_models_cache,
        port=settings.llm_models_port,
        keep=settings.llm_models_keep,
        rehash=settings.llm_models_rehash,
    )


def _engine(
    row: dict[str, Any],
    rules: dict[str, Any],
    options: EngineOptions,
    model: Model,
    state: dict[str, Any],
) -> Engine:
    """How the engine's container runs, by its rules and the row of its image."""
    board = state["board"]
    variables = dict(rules["environment"])
    if model.projector:
        variables |= rules.get("projector", {})
    jetpack = JETPACKS.get(board["l4t"]["major"]) if board["l4t"] else None
    if options.provider == "ollama" and jetpack in OLLAMA_JETPACKS:
        variables["JETSON_JETPACK"] = str(jetpack)
    limit = board["memory_total"] - ENGINE_SPARE
    return Engine(
        command=tuple(rules["command"]),
        entrypoint=freeze(row["entrypoint"] or rules.get("entrypoint")),
        variables=freeze(variables),
        healthcheck=tuple(rules["healthcheck"]),
        shm_size=rules.get("shm_size"),
        key=rules["key"],
        flash_attention=rules["flash_attention"][options.flash_attention],
        # An engine that leaks ends itself, and not the host. A kernel's update changes the memory
        # that it reports by a little, and must not change a release.
        memory_limit=limit // LIMIT_STEP * LIMIT_STEP,
        pids_limit=ENGINE_PIDS,
    )


def _docker(gpu: Gpu, images: Images, settings: Settings, request: Request) -> Docker:
    """What Docker needs on the host."""
    state, docker = request.state, request.state["docker"]
    system = state["board"]["os"]
    packages = request.catalogues["systems"][system["id"]][system["version_id"]]
    missing = [] if docker["running"] else packages["docker"]
    missing = missing + ([] if docker["running"] and docker["compose"] else packages["compose"])
    options = settings.board_docker_options
    registry = None
    if images.cache and request.images_cache:
        registry = registry_authority(request.images_cache)
    registries = plan_registries(state, options, registry)
    if registry:
        # The images from there are verified by their digests.
        insecure = [*options.get(INSECURE_REGISTRIES, []), registry]
        options = options | {INSECURE_REGISTRIES: insecure}
    runtime = None if gpu.runtime in docker["runtimes"] else gpu.runtime
    wanted = daemon_json_wanted(
        docker["daemon_json"],
        options,
        runtime,
        state["board"]["nvidia_runtime"],
        # Where Docker has it without the file, it has it as an option of its command, and would not
        # start with both. Facts of earlier versions do not say.
        not (docker.get("swarm") or docker.get("live_restore")),
        registries.former,
    )
    return Docker(tuple(missing), freeze(wanted), registries)
