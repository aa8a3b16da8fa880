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
from ..constants import CONTAINERS, DEPLOYED_FILES, NETWORK, PORTS, ROOT, SECRETS
from ..files import read_file, read_text
from ..json_data import Facts, parse_json_lines
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
    parse_published,
    read_namespace,
    read_no_raw,
)
from .engine import read_engine_log
from .ports import read_ports
from .system import read_packages
from .weights import read_models, read_ollama, read_unfinished

_JSON = "{{json .}}"


def read_state(
    root: str = ROOT,
    ports: Sequence[int] = PORTS,
    secrets: Optional[Mapping[str, str]] = None,
    secrets_owner: Optional[int] = None,
    system: str = "/",
) -> Facts:
    """Everything on this host that decisions need. Reads only.

    root: the deployment's folder (absolute); ports: TCP ports to look at; secrets: file name under
    root/secrets -> sha256 expected; secrets_owner: the user id these files must belong to, None
    for any; system: where /etc, /proc and /sys are. Returns {"board", "docker", "ports",
    "deployment", "models"}; `library/host_info.py` documents each. Raises ValueError, with a
    sentence, for arguments that cannot be meant. A docker that is missing or dead is a state.
    """
    folder, base = Path(root), Path(system)
    if not folder.is_absolute():
        raise ValueError(f"root is invalid: {root!r}. Use an absolute path such as {ROOT}.")
    docker = which("docker")
    commands = board_commands()
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
    engine = parse_docker_info(info.out, info.err)
    packages = read_packages(base)
    daemon_json, daemon_json_error = parse_daemon_json(read_text(base / "etc/docker/daemon.json"))
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
            "no_raw": engine["no_raw"] if engine["running"] else read_no_raw(base),
            "containers": len(parse_json_lines(ps.out)) if ps.code == 0 else None,
            "daemon_json": daemon_json,
            "daemon_json_error": daemon_json_error,
        },
        "ports": read_ports(ports, parse_published(ps.out), base),
        "deployment": {
            # What the links lead to: the current release's.
            "files": {name: read_file((folder / name).resolve()) for name in DEPLOYED_FILES},
            "secrets": read_secrets(folder / SECRETS, secrets or {}, secrets_owner),
            "plain_keys": needs_plain_keys(folder),
            "containers": {**parts, "network": containers.get(NETWORK)},
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
