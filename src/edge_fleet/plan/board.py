"""Whether a board can be served, and the settings that it decides."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from edge_fleet.l4t import l4t_within
from edge_fleet.plan.memory import BATCH, UBATCH
from edge_fleet.plan.task import DEFAULT_CONTEXT, DEFAULT_PARALLEL
from edge_fleet.plan.types import EngineOptions
from edge_fleet.settings import Settings
from edge_fleet.text import GIB, Problem, join_choices, parse_version
from edge_host.constants import API_PORT, DOOR, ENGINE_PORT, PROJECT, SOCKETS_UNIT

# On boards with less than this, both are smaller: compute buffers are as large as the micro-batch.
SMALL_MEMORY = 3 * GIB
SMALL_BATCH, SMALL_UBATCH = 512, 128
# All containers of this project: the door, and what held the ports before there was one.
OWN_CONTAINERS = f"{PROJECT}-"
MINIMUM_COMPOSE = (2, 18)
ALL_LAYERS = 99


def default_threads(cpus: int) -> int:
    """CPU threads for the engine: two cores stay free on boards that have six or more."""
    return cpus - 2 if cpus >= 6 else max(1, cpus)


def engine_options(settings: Settings, board: dict[str, Any]) -> EngineOptions:
    """The engine's settings, with those that the board decides; docs/boards.md has the reasons."""
    provider: str = settings.llm_provider
    if provider == "auto":
        provider = "llamacpp" if board["kind"] == "jetson" else "ollama"
    layers = settings.llm_gpu_layers
    if layers is None:
        layers = ALL_LAYERS if board["kind"] == "jetson" else 0
    required = settings.llm_gpu_required
    cache_type = settings.llm_cache_type or "f16"
    # Quantized values can be read by flash attention alone.
    attention = "auto" if cache_type == "f16" else "on"
    small = board["memory_total"] < SMALL_MEMORY
    return EngineOptions(
        provider=provider,
        context_size=settings.llm_context_size or DEFAULT_CONTEXT,
        parallel=settings.llm_parallel or DEFAULT_PARALLEL,
        gpu_layers=layers,
        gpu_required=layers > 0 if required is None else required,
        threads=settings.llm_threads or default_threads(board["cpus"]),
        batch_size=settings.llm_batch_size or (SMALL_BATCH if small else BATCH),
        ubatch_size=settings.llm_ubatch_size or (SMALL_UBATCH if small else UBATCH),
        cache_type=cache_type,
        flash_attention=settings.llm_flash_attention or attention,
    )


def board_problems(
    board: dict[str, Any], docker: dict[str, Any], boards: dict[str, Any]
) -> list[Problem]:
    """Why a board and its system are not supported."""
    problems: list[Problem] = []
    architectures = boards["architectures"]
    if board["arch"] not in architectures or board["userland_bits"] != 64:
        problems.append(
            f"the host's architecture does not fit: {board['arch']} with a"
            f" {board['userland_bits']}-bit userland. Use a 64-bit system on"
            f" {join_choices(sorted(architectures))}."
        )
    problems += _system_problems(board["os"], docker, boards["systems"])
    if docker["compose"] and parse_version(docker["compose"])[:2] < MINIMUM_COMPOSE:
        problems.append(
            f"docker compose does not fit: the host has {docker['compose']}. Install"
            f" {'.'.join(map(str, MINIMUM_COMPOSE))} or newer."
        )
    if not board["root"]:
        problems.append(
            "the rights of root are missing: the host was read as another user. Set"
            " ansible_become: true for the host."
        )
    if board["init"] != "systemd":
        problems.append(
            f"the host's init does not fit: {board['init']}. Use a system with systemd."
        )
    # Facts of an earlier version do not have them.
    accounts = board.get("accounts") or []
    if accounts:
        found = [f"{each['kind']} {each['name']} ({each['id']})" for each in accounts]
        problems.append(
            "the ids of the project's users do not fit: on the host they belong to"
            f" {', '.join(found)}. Give these accounts other ids (usermod --uid, groupmod --gid),"
            " and their files (chown)."
        )
    l4t = board["l4t"]
    if board["kind"] == "jetson" and l4t is None:
        problems.append(
            "the L4T release is missing: /etc/nv_tegra_release of the Jetson does not name it."
            " Correct the file, or install JetPack again."
        )
    elif board["kind"] == "jetson" and not l4t_within(l4t, boards["l4t"]):
        problems.append(
            f"the L4T release does not fit: {l4t['text']}. Use a release from {boards['l4t'][0]}"
            f" up to, but not including, {boards['l4t'][1]}."
        )
    if docker["daemon_json_error"]:
        problems.append(
            f"/etc/docker/daemon.json is invalid: {docker['daemon_json_error']}. Correct the file"
            " on the host."
        )
    return problems


def _system_problems(
    system: dict[str, Any], docker: dict[str, Any], systems: dict[str, Any]
) -> list[Problem]:
    """Why Docker with its compose plugin is not there and cannot be installed."""
    name, version = system["id"], system["version_id"]
    if version not in systems.get(name, {}):
        known = sorted(
            f"{each} {version}" for each, versions in systems.items() for version in versions
        )
        shown = system.get("pretty_name") or f"{name} {version}"
        return [f"the host's system does not fit: {shown}. Use {join_choices(known)}."]
    if docker["running"] and docker["compose"]:
        return []
    if not systems[name][version]["compose"]:
        return [
            "Docker with its compose plugin is missing: it does not run on the host, and the"
            f" archive of {name} {version} does not have the plugin. Install Docker CE"
            " (docs.docker.com/engine/install) and run this again."
        ]
    if docker["ce"] and docker["running"]:
        return [
            "the compose plugin of Docker CE is missing: docker compose does not run on the host."
            " Install docker-compose-plugin and run this again."
        ]
    if docker["ce"]:
        return [
            f"Docker CE does not answer on the host: {docker['error']}. Start Docker"
            " (systemctl start docker) and run this again."
        ]
    return []


def lock_problems(lock: dict[str, Any] | None) -> list[Problem]:
    """Why a host cannot be changed now."""
    if lock is None:
        return []
    return [
        f"the host is locked: {lock['by']} has been changing it since {lock['since']}. Run this"
        " again when that change has ended."
    ]


def port_problems(ports: dict[str, Any], docker: dict[str, Any]) -> list[Problem]:
    """Why the project's ports are not free."""
    problems: list[Problem] = []
    # While Docker starts, it holds its containers' ports and cannot say yet whose they are.
    starting = docker["cli"] and not docker["running"]
    for port, owner in ((API_PORT, "chat API"), (ENGINE_PORT, "engine")):
        listener = ports.get(str(port))
        if starting and listener and str(listener["process"]).startswith("docker-proxy (pid "):
            continue
        if listener and not _is_own(listener):
            unit = listener.get("unit")
            holder = (
                f"container {listener['container']}"
                if listener["container"]
                else f"systemd for {unit}"
                if unit
                else listener["process"] or "another process"
            )
            problems.append(
                f"port {port} is in use by {holder}: the {owner} needs this port. Stop the other"
                " user of the port, or move it to another port."
            )
    return problems


def _is_own(listener: dict[str, Any]) -> bool:
    """Whether the project holds a port: by systemd, or by a container on hosts of 0.1."""
    container = listener["container"] or ""
    return container.startswith(OWN_CONTAINERS) or listener.get("unit") == SOCKETS_UNIT


def listen_problems(address: str, addresses: list[str] | None) -> list[Problem]:
    """Why the chat API cannot listen at an address: the host does not have it.

    `addresses` are those of the host; None where its facts were read by an earlier version.
    """
    if not address or not addresses or address in addresses:
        return []
    found = [each for each in addresses if not ipaddress.ip_address(each).is_loopback]
    return [
        f"llm_listen_address does not fit: the host does not have {address}. Its addresses are"
        f" {', '.join(found)}. Use one of these."
    ]


def listen_notices(address: str, listener: Mapping[str, Any] | None) -> list[str]:
    """What to know of the address: a host of an earlier version listens at all until it boots.

    `listener` is who has the chat API's port.
    """
    if not address or not listener or listener["container"] != DOOR:
        return []
    return [
        f"llm_listen_address {address} has no effect before the next boot: the container {DOOR} of"
        f" an earlier version listens at port {API_PORT} of all addresses until then. Reboot the"
        " host when a pause suits."
    ]
