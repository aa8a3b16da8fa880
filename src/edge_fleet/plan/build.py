"""The plan: board facts, inventory settings and catalogues become one dictionary that describes a
host's deployment, or the reasons why there can be none.

Pure functions: nothing here reads a file, a clock or a host. Sizes are bytes throughout.
"""

from __future__ import annotations

from typing import Any

from edge_fleet.catalogue import problems_of
from edge_fleet.l4t import JETPACKS, l4t_of
from edge_fleet.plan.board import (
    board_problems,
    lock_problems,
    port_problems,
    with_defaults,
)
from edge_fleet.plan.docker import daemon_json_wanted, daemon_option_problems
from edge_fleet.plan.image import (
    engine_image,
    engine_rules,
    pinned,
    registry_authority,
    through_cache,
)
from edge_fleet.plan.memory import (
    LIMIT_STEP,
    SYSTEM_MEMORY,
    Need,
    cache_type_problems,
    context_problems,
    cpu_features,
    gpu_problems,
    memory_parts,
    memory_problem,
    repacking,
)
from edge_fleet.plan.suggestions import other_models, what_fits
from edge_fleet.plan.weights import disk_problems, missing_files, model_plan
from edge_fleet.settings import check_settings
from edge_host.constants import API_PORT, REGISTRY_PORT, ROOT
from edge_host.image_ref import is_pinned

# vLLM's cache comes in blocks of up to 128 tokens, and one of them is its own.
SPARE_TOKENS = 256
# Ollama's image has CUDA libraries for these; JetPack 7 uses those of other machines.
OLLAMA_JETPACKS = ("5", "6")
NO_TRAPS: dict[str, Any] = {
    "problems": [], "notices": [], "fixes": {}, "reboot": [], "may_reboot": False
}  # fmt: skip


def deployment_plan(
    state: dict[str, Any],
    host: str,
    given: dict[str, Any],
    catalogues: dict[str, Any],
    root: str = ROOT,
    url: str | None = None,
    docker_options: dict[str, Any] | None = None,
    images_cache: str | None = None,
    traps: dict[str, Any] | None = None,
    suggest: bool = True,
) -> dict[str, Any]:
    """Decide everything about a host's deployment.

    Args:
        state: what the `host_info` module returned for the host.
        host: its inventory name, for the sentences.
        given: its llm_* variables as the inventory has them.
        catalogues: the contents of models.yml, engines.yml and boards.yml in one dictionary (keys
            models, engines, api, registry, architectures, systems, cpus, l4t, jetpack, cuda).
        root: where everything lives on the host.
        url: where clients reach its chat API.
        docker_options: what /etc/docker/daemon.json must hold besides.
        images_cache: the address of the host that llm_images_cache names, None where it is unknown.
        traps: what edge_fleet.known_issues found on the host.
        suggest: whether to say what would fit where memory does not suffice.

    Returns:
        {"problems": [sentence, ...]} where nothing can be deployed, else {"problems": [], and
        host, root, url, rollout, sources, images, provider, hardware, board, l4t, model, engine,
        gpu, api, memory, docker, traps, environment}.
    """
    asked_options = docker_options
    docker_options = docker_options or {}
    traps = traps or NO_TRAPS
    board, docker = state["board"], state["docker"]
    checked, problems = check_settings(given)
    if wrong := problems_of(catalogues):
        return {"problems": [f"{host}: {each}" for each in problems + wrong]}
    settings = with_defaults(checked.model_dump(), board)
    problems += board_problems(board, docker, catalogues)
    problems += lock_problems(state["deployment"]["lock"])
    problems += port_problems(state["ports"], docker)
    problems += daemon_option_problems(docker_options)
    base_image = settings["llm_api_base_image"] or pinned(catalogues["api"])
    registry_image = settings["llm_registry_image"] or pinned(catalogues["registry"])
    for name, reference in (("api", base_image), ("registry", registry_image)):
        if not is_pinned(reference):
            problems.append(
                f"{name} in engines.yml is invalid: {catalogues[name]['image']} has no digest."
                f" `make lock IMAGES={catalogues[name]['image']}` writes it down."
            )

    provider = settings["llm_provider"]
    if provider == "auto":
        provider = "llamacpp" if board["kind"] == "jetson" else "ollama"
    engine = catalogues["engines"][provider]
    context_size, parallel = settings["llm_context_size"], settings["llm_parallel"]
    gpu_layers, required = settings["llm_gpu_layers"], settings["llm_gpu_required"]

    image, image_problems = engine_image(settings, provider, engine, state, gpu_layers > 0)
    engine = engine_rules(engine, image)
    cache = settings["llm_images_cache"]
    if cache and not images_cache:
        problems.append(
            f"llm_images_cache is {cache!r}, which the inventory has not; accepted is the name of a"
            " host in it."
        )
    if cache and images_cache:
        registry = registry_authority(images_cache)
        insecure = docker_options.get("insecure-registries", [])
        # What comes from there is checked by its digest.
        docker_options = docker_options | {"insecure-registries": [*insecure, registry]}
    model, model_problems = model_plan(
        settings["llm_model"],
        engine,
        provider,
        catalogues["models"],
        settings["llm_models_mirror"],
        state["models"],
    )
    problems += image_problems + model_problems

    runtime = "nvidia" if gpu_layers > 0 and board["kind"] != "pi" else None
    if gpu_layers > 0 and board["kind"] == "pi":
        problems.append(
            f"llm_gpu_layers is {gpu_layers}, and no engine uses a Pi's GPU; accepted is 0."
        )
    if runtime and not board["nvidia_runtime"] and runtime not in docker["runtimes"]:
        problems.append(
            "llm_gpu_layers asks for the GPU, and the host has no nvidia-container-runtime;"
            " install nvidia-container-toolkit, or set llm_gpu_layers to 0."
        )

    if model and provider != "llamacpp" and 0 < gpu_layers <= model["shape"]["layers"]:
        problems.append(
            f"llm_gpu_layers is {gpu_layers}, and {provider} has all layers of a model on the GPU"
            f" or decides by itself; accepted are 0 and {model['shape']['layers'] + 1} or more."
        )
    problems += cache_type_problems(settings, provider, engine)
    memory: dict[str, int] = {}
    if model and settings["llm_cache_type"] in engine["cache_types"]:
        gpu = gpu_layers > 0
        # A GPU takes weights as they are. Where it is not required, the CPU may have to serve.
        on_gpu = gpu and required
        features = [] if on_gpu else cpu_features(board, catalogues["cpus"])
        more = repacking(catalogues["models"][model["name"]], engine, features)
        need = Need(model["shape"], model["size"], engine, gpu, more)
        memory = memory_parts(need, settings)
        model["present"] = not missing_files(model, state["models"])
        too_long = context_problems(model, context_size)
        problems += too_long
        problems += gpu_problems(model, memory, board, gpu_layers, provider)
        problems += disk_problems(model, state, settings["llm_models_keep"])

        def works(changed: dict[str, object]) -> bool:
            again = deployment_plan(
                state,
                host,
                given | changed,
                catalogues,
                root,
                url,
                asked_options,
                images_cache,
                traps,
                suggest=False,
            )
            known = {*(f"{host}: {each}" for each in problems), *traps["problems"]}
            return known.issuperset(again["problems"])

        if memory["total"] > board["memory_total"] and not too_long:
            problem = memory_problem(model, memory, board, settings)
            if suggest:
                others = other_models(catalogues["models"], engine, gpu, features)
                problem += what_fits(need, board, settings, others, works)
            problems.append(problem)
    if problems or traps["problems"]:
        return {"problems": [f"{host}: {each}" for each in problems] + traps["problems"]}

    jetpack = {}
    named = JETPACKS.get(board["l4t"]["major"]) if board["l4t"] else None
    if provider == "ollama" and named in OLLAMA_JETPACKS:
        jetpack = {"JETSON_JETPACK": named}
    outside = [image["image"], base_image]
    inside = [through_cache(each, images_cache if cache else None) for each in outside]
    packages = catalogues["systems"][board["os"]["id"]][board["os"]["version_id"]]
    daemon_json = daemon_json_wanted(
        docker["daemon_json"],
        docker_options,
        None if runtime in docker["runtimes"] else runtime,
        board["nvidia_runtime"],
    )
    return {
        "problems": [],
        "host": host,
        "root": root,
        "url": url or f"http://{host}:{API_PORT}",
        "rollout": settings["llm_rollout"],
        "sources": {
            "mirror": settings["llm_models_mirror"].rstrip("/"),
            "cache": settings["llm_models_cache"],
            "port": settings["llm_models_port"],
            "keep": settings["llm_models_keep"],
            "rehash": settings["llm_models_rehash"],
        },
        "images": {
            "cache": cache,
            # Of the registry itself, should this host be one's cache.
            "registry": registry_image,
            "port": REGISTRY_PORT,
            # Those that are pulled from the cache: what each is outside.
            "outside": {
                there: here for there, here in zip(inside, outside, strict=True) if there != here
            },
        },
        "provider": provider,
        "hardware": board["kind"],
        "board": board["model"] or board["kind"],
        "l4t": l4t_of(board["l4t"], catalogues),
        "model": model,
        "engine": {
            "image": inside[0],
            "entrypoint": image["entrypoint"] or engine.get("entrypoint"),
            "shm_size": engine.get("shm_size"),
            "command": engine["command"],
            "environment": engine["environment"]
            | (engine.get("projector", {}) if model["projector"] else {})
            | jetpack,
            "healthcheck": engine["healthcheck"],
            "key": engine["key"],
            "context": engine["context"],
            # One that leaks ends itself, and not the host. A kernel's update changes what it tells
            # of the memory by a little, and must not change a release.
            "memory_limit": (board["memory_total"] - SYSTEM_MEMORY // 2) // LIMIT_STEP * LIMIT_STEP,
            # Without rules in the raw table, what is published for the host itself can be reached
            # from its network (moby/moby#49621).
            "published": not (docker["no_raw"] or "no_raw" in traps["fixes"]),
        },
        "gpu": {
            "layers": gpu_layers,
            # Those of the model, and its output.
            "of": model["shape"]["layers"] + 1,
            "required": required,
            "runtime": runtime,
            # A container's user that is not root reaches the GPU's devices by their groups.
            "groups": board["gpu_groups"] if runtime else [],
        },
        "api": {
            "base_image": inside[1],
            "architecture": catalogues["architectures"][board["arch"]],
        },
        "memory": memory,
        "docker": {
            "packages": ([] if docker["running"] else packages["docker"])
            + ([] if docker["running"] and docker["compose"] else packages["compose"]),
            "daemon_json": daemon_json,
        },
        "traps": traps,
        # The host's .env, in the order in which a person reads it.
        "environment": {
            "LLM_PROVIDER": provider,
            "LLM_MODEL": model["name"],
            "MODEL_PATH": model["path"],
            **({"MMPROJ_PATH": model["projector"]} if model["projector"] else {}),
            "CTX_SIZE": context_size,
            "N_GPU_LAYERS": gpu_layers,
            "THREADS": settings["llm_threads"],
            "PARALLEL": parallel,
            "CTX_TOTAL": context_size * parallel,
            "BATCH": settings["llm_batch_size"],
            "UBATCH": settings["llm_ubatch_size"],
            "FLASH_ATTENTION": engine["flash_attention"][settings["llm_flash_attention"]],
            "CACHE_TYPE": settings["llm_cache_type"],
            "KV_CACHE_BYTES": memory["kv_cache"] // context_size * (context_size + SPARE_TOKENS),
            "LLM_MODEL_ALIASES": ",".join(settings["llm_model_aliases"]),
            "HARDWARE": board["kind"],
            "ENGINE_IMAGE": inside[0],
        },
    }
