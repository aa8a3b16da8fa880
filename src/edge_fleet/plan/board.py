"""Whether a board can be served, and the settings that it decides."""

from __future__ import annotations

from typing import Any

from edge_fleet.l4t import l4t_within
from edge_fleet.plan.memory import BATCH, UBATCH
from edge_fleet.text import GIB, Problem, join_names, parse_version
from edge_host.constants import API_PORT, ENGINE_PORT, PROJECT

# On boards with less than this, both are smaller: compute buffers are as large as the micro-batch.
SMALL_MEMORY = 3 * GIB
SMALL_BATCH, SMALL_UBATCH = 512, 128
# All containers of this project: the door, and what held the ports before there was one.
OWN_CONTAINERS = f"{PROJECT}-"
MINIMUM_COMPOSE = (2, 18)


def default_threads(cpus: int) -> int:
    """CPU threads for the engine: two cores stay free on boards that have six or more."""
    return cpus - 2 if cpus >= 6 else max(1, cpus)


def with_defaults(settings: dict[str, Any], board: dict[str, Any]) -> dict[str, Any]:
    """The settings, with what the board decides filled in; docs/boards.md says why."""
    layers = 99 if board["kind"] == "jetson" else 0
    if settings["llm_gpu_layers"] is not None:
        layers = settings["llm_gpu_layers"]
    small = board["memory_total"] < SMALL_MEMORY
    decided = {
        "llm_gpu_layers": layers,
        "llm_gpu_required": layers > 0,
        "llm_threads": default_threads(board["cpus"]),
        "llm_batch_size": SMALL_BATCH if small else BATCH,
        "llm_ubatch_size": SMALL_UBATCH if small else UBATCH,
        "llm_cache_type": "f16",
        "llm_flash_attention": "auto",
    }
    # Quantized values can be read by flash attention alone.
    if settings["llm_cache_type"] not in (None, "f16"):
        decided["llm_flash_attention"] = "on"
    return settings | {name: value for name, value in decided.items() if settings[name] is None}


def board_problems(
    board: dict[str, Any], docker: dict[str, Any], boards: dict[str, Any]
) -> list[Problem]:
    problems: list[Problem] = []
    architectures = boards["architectures"]
    if board["arch"] not in architectures or board["userland_bits"] != 64:
        problems.append(
            f"the host is {board['arch']} with a {board['userland_bits']}-bit userland;"
            f" supported are 64-bit systems on: {join_names(list(architectures))}."
        )
    system, version = board["os"]["id"], board["os"]["version_id"]
    versions = boards["systems"].get(system, {})
    if version not in versions:
        known = [f"{name} {each}" for name, some in boards["systems"].items() for each in some]
        problems.append(
            f"the host runs {board['os'].get('pretty_name') or f'{system} {version}'};"
            f" supported are: {join_names(known)}."
        )
    elif not versions[version]["compose"] and not (docker["running"] and docker["compose"]):
        problems.append(
            f"Docker with its compose plugin is not running on the host, and the archive of"
            f" {system} {version} does not have the plugin; install Docker CE"
            " (docs.docker.com/engine/install) and run this again."
        )
    elif docker["ce"] and not (docker["running"] and docker["compose"]):
        problems.append(
            "Docker CE is installed on the host, and "
            + (
                "its compose plugin is missing; install docker-compose-plugin"
                if docker["running"]
                else f"does not answer ({docker['error']}); start it (systemctl start docker)"
            )
            + " and run this again."
        )
    if docker["compose"] and parse_version(docker["compose"])[:2] < MINIMUM_COMPOSE:
        problems.append(
            f"the host has docker compose {docker['compose']}; accepted is"
            f" {'.'.join(map(str, MINIMUM_COMPOSE))} or newer."
        )
    if not board["root"]:
        problems.append("the host was not read as root; set ansible_become: true for it.")
    if board["init"] != "systemd":
        problems.append(f"the host's init is {board['init']}; supported is systemd.")
    l4t = board["l4t"]
    if board["kind"] == "jetson" and l4t is None:
        problems.append("the board is a Jetson, and /etc/nv_tegra_release does not name its L4T.")
    elif board["kind"] == "jetson" and not l4t_within(l4t, boards["l4t"]):
        problems.append(
            f"the host runs L4T {l4t['text']}; supported are releases from {boards['l4t'][0]}"
            f" up to, not including, {boards['l4t'][1]}."
        )
    if docker["daemon_json_error"]:
        problems.append(f"/etc/docker/daemon.json cannot be read: {docker['daemon_json_error']}")
    return problems


def lock_problems(lock: dict[str, Any] | None) -> list[Problem]:
    if lock is None:
        return []
    return [
        f"{lock['by']} has been changing the host since {lock['since']}; run this again when that"
        " has ended."
    ]


def port_problems(ports: dict[str, Any], docker: dict[str, Any]) -> list[Problem]:
    problems: list[Problem] = []
    # While Docker starts, it holds its containers' ports and cannot say yet whose they are.
    starting = docker["cli"] and not docker["running"]
    for port, owner in ((API_PORT, "api"), (ENGINE_PORT, "engine")):
        listener = ports.get(str(port))
        if starting and listener and str(listener["process"]).startswith("docker-proxy (pid "):
            continue
        if listener and not (listener["container"] or "").startswith(OWN_CONTAINERS):
            holder = (
                f"container {listener['container']}"
                if listener["container"]
                else listener["process"] or "another process"
            )
            problems.append(
                f"port {port} is needed for the {'chat API' if owner == 'api' else 'engine'} and"
                f" is in use by {holder}; stop it, or move it to another port."
            )
    return problems
