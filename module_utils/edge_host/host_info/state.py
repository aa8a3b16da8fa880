"""Everything on a host that decisions need, read in one call.

Nothing here changes the host. Functions named `parse_*` in this package are pure: captured text in,
plain data out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Mapping, Optional, Sequence

from ..commands import Result, run_together, which
from ..constants import (
    CONTAINERS,
    DEPLOYED_FILES,
    NETWORK,
    PLANNED_OPTIONS,
    PORTS,
    REGISTRY_PROJECT,
    ROOT,
    SECRETS,
)
from ..files import read_file, read_text
from ..json_data import Facts, parse_json_lines
from ..release_record import listen_address
from ..unit_files.installed import inspect_installation
from .board import board_commands, read_board
from .deployment import (
    describe_change,
    needs_plain_keys,
    read_history,
    read_journal,
    read_lock,
    read_release,
    read_secrets,
)
from .docker import (
    parse_containers,
    parse_daemon_json,
    parse_docker_info,
    parse_images,
    parse_names,
    parse_published,
    read_namespace,
    read_own_registries,
    read_swarm,
    select_options,
)
from .engine import read_engine_log
from .network import read_addresses
from .ports import parse_socket_units, read_ports
from .system import read_packages
from .weights import read_models, read_ollama, read_unfinished

_JSON = "{{json .}}"


def read_state(
    root: str = ROOT,
    ports: Sequence[int] = PORTS,
    secrets: Optional[Mapping[str, str]] = None,
    system: str = "/",
    program: Optional[str] = None,
) -> Facts:
    """Everything on this host that decisions need. Reads only.

    root: the deployment's folder (absolute); ports: TCP ports to look at; secrets: file name under
    root/secrets -> sha256 expected; system: where /etc, /proc and /sys are; program: the path of
    the host program of this version, None where nobody asks for it. Returns {"board", "docker",
    "addresses", "ports", "deployment", "models"}; `library/host_info.py` documents each.
    Raises ValueError, with a sentence, for arguments that cannot be meant. A docker that is missing
    or dead is a state.
    """
    folder, base = Path(root), Path(system)
    if not folder.is_absolute():
        raise ValueError(f"root is invalid: {root!r}. Use an absolute path such as {ROOT}.")
    docker = which("docker")
    commands = board_commands()
    systemctl = which("systemctl")
    if systemctl is not None:
        commands["sockets"] = [systemctl, "list-sockets", "--no-legend", "--no-pager", "--full"]
    if docker is not None:
        commands.update(
            {
                "info": [docker, "info", "--format", _JSON],
                "ps": [docker, "ps", "--no-trunc", "--format", _JSON],
                "inspect": [docker, "inspect", "--type", "container", NETWORK, *CONTAINERS],
                "images": [docker, "image", "ls", "--digests", "--no-trunc", "--format", _JSON],
            }
        )
    answers = run_together(commands)
    none = Result(None, "", "there is no docker command")
    info, ps = answers.get("info", none), answers.get("ps", none)
    units = parse_socket_units(answers.get("sockets", none).out)
    engine = parse_docker_info(info.out, info.err)
    packages = read_packages(base)
    daemon_json, daemon_json_error = parse_daemon_json(read_text(base / "etc/docker/daemon.json"))
    published = parse_published(ps.out)
    containers = parse_containers(answers.get("inspect", none).out)
    for each in containers.values():
        each["namespace"] = read_namespace(each.pop("pid"), base)
    release = read_release(folder, "current")
    slots = release["slots"] if release else {"engine": "a", "api": "a"}
    parts = {part: containers.get(f"edge-llm-{part}-{slots[part]}") for part in ("engine", "api")}
    return {
        "board": read_board(folder, base, answers, packages),
        "docker": {
            "cli": docker is not None,
            # Docker's own packages, which those of the system's archive would replace.
            "ce": (base / "var/lib/dpkg/info/docker-ce.list").exists(),
            "packages": packages["installed"],
            **engine,
            "swarm": engine["swarm"] if engine["running"] else read_swarm(base),
            "containers": len(parse_json_lines(ps.out)) if ps.code == 0 else None,
            "published_registry": any(
                name.startswith(REGISTRY_PROJECT) for name, _, _ in published
            ),
            "own_registries": read_own_registries(base),
            "daemon_json": select_options(daemon_json, PLANNED_OPTIONS),
            "daemon_json_error": daemon_json_error,
        },
        "addresses": read_addresses(base),
        "ports": read_ports(ports, published, parse_names(ps.out), units, base),
        "deployment": {
            # What the links lead to: the current release's.
            "files": {name: read_file((folder / name).resolve()) for name in DEPLOYED_FILES},
            "secrets": read_secrets(folder / SECRETS, secrets or {}),
            "plain_keys": needs_plain_keys(folder),
            "containers": {**parts, "network": containers.get(NETWORK)},
            "installed": (
                inspect_installation(
                    folder, Path(program), listen_address(release) if release else "", base
                )
                if program
                else {}
            ),
            "release": release,
            "previous": read_release(folder, "previous"),
            "change": read_journal(folder),
            "lock": read_lock(folder),
            "history": [describe_change(each) for each in read_history(folder)],
            "ollama": read_ollama(folder / "models"),
            "images": parse_images(answers.get("images", none).out),
            "engine_log": read_engine_log(docker or "", parts["engine"]),
        },
        "models": read_models(folder / "models"),
        "unfinished": read_unfinished(folder / "models"),
    }


def main(arguments: Sequence[str]) -> int:
    """Print the state as JSON; exit status 2 with a sentence where it cannot be read."""
    try:
        state = read_state(**json.loads(arguments[0] if arguments else "{}"))
    except (OSError, TypeError, ValueError) as error:
        print(f"host_info: {error}", file=sys.stderr)
        return 2
    print(json.dumps(state, sort_keys=True))
    return 0
