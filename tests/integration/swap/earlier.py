"""Runs on the board: it serves a release as an earlier version of this project made it.

`python3 earlier.py SWAP` switches to that release: engine and chat API have addresses in a network
of Docker, and run as one user, who owns folders, keys and downloads. It reads the keys of clients
in plain text from its input. `python3 earlier.py door` has a container publish the ports then, as
on a host that no later version has changed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

# The program that is installed there.
sys.path[:0] = map(str, Path("/opt/edge-llm/lib").glob("edge_host-*.pyz"))

from edge_host.constants import (  # noqa: E402
    API_UID,
    ENGINE_KEY,
    ENGINE_UID,
    MODELS,
    PLAIN_KEYS,
    SECRETS,
    SOCKETS_UNIT,
    WORKSHOP,
)
from edge_host.release.host import Host  # noqa: E402
from edge_host.release.lock import lock_host  # noqa: E402
from edge_host.release.request import ReleaseRequest  # noqa: E402
from edge_host.release.slots import read_source  # noqa: E402
from edge_host.release.stage import stage_release  # noqa: E402
from edge_host.release.switch import switch_release  # noqa: E402

DOOR = """\
  door:
    <<: *contained
    container_name: edge-llm-door
    image: ${DOOR_IMAGE}
    pull_policy: never
    entrypoint: [python, -m, llm_provider.door, --socket, /run/edge-llm/door.sock, "8000", "11434"]
    mem_limit: 50331648
    ports: ["8000:8000", "127.0.0.1:11434:11434"]
    volumes:
      - {type: bind, source: ./run, target: /run/edge-llm, bind: {create_host_path: false}}

"""


# Its chat API reads these. The one of this version, which stands for it, reads hashes.
PLAIN_KEYS_OPTION = f"""\
x-earlier:
  CHAT_API_KEYS_FILE: /run/secrets/{PLAIN_KEYS}

services:
"""


def earlier(compose: str) -> str:
    """Return a compose file with the services of earlier versions."""
    compose = re.sub(r"(?ms)^  network:\n.*?(?=^  engine-)", DOOR, compose)
    compose = compose.replace('    network_mode: "service:network"\n', "")
    # Its check asks at the loopback address, and it listens at all addresses.
    compose = compose.replace("http://127.0.0.1:${ENGINE_PORT}", "http://127.0.0.1:8080")
    compose = compose.replace("127.0.0.1:${ENGINE_PORT}", "0.0.0.0:8080")
    compose = re.sub(r'("?)127\.0\.0\.1\1$', '"0.0.0.0"', compose, flags=re.MULTILINE)
    compose = compose.replace("${ENGINE_PORT}", "8080")
    compose = compose.replace(f'    user: "{ENGINE_UID}:{ENGINE_UID}"\n', "")
    return compose.replace("services:\n", PLAIN_KEYS_OPTION, 1)


def own(root: Path, keys: str) -> None:
    """Give folders, keys and a download that aria2 has left to the one user of earlier versions."""
    secrets, download = root / SECRETS, Path(MODELS) / WORKSHOP / "bundle"
    (secrets / PLAIN_KEYS).write_text(keys)
    download.mkdir(parents=True, exist_ok=True)
    (download / "weights.gguf.aria2").touch()
    for folder in (secrets, root / "run", download.parent):
        for path in (folder, *folder.rglob("*")):
            os.chown(path, API_UID, API_UID, follow_symlinks=False)
    for name in (PLAIN_KEYS, ENGINE_KEY):
        (secrets / name).chmod(0o600)
    secrets.chmod(0o700)


def switch(swap: str) -> None:
    """Switch to the current release as an earlier version made it, and print the result."""
    host = Host()
    with lock_host(host.root, "the tests", timeout=60):
        current = host.releases.current()
        assert current is not None
        files = read_source(current)
        files["docker-compose.yml"] = earlier(files["docker-compose.yml"])
        files["engine.env"] = files["engine.env"].replace(
            "127.0.0.1:@ENGINE_PORT@", "engine-@ENGINE_SLOT@:8080"
        )
        plan = {name: each for name, each in current.plan.items() if name != "network"}
        kept = {name: current.record[name] for name in ("start_timeout", "drain_timeout")}
        metadata = {**kept, "plan": plan, "swap": swap, "by": "the tests"}
        to = stage_release(host, ReleaseRequest(files, metadata))
        result = switch_release(host, to.number, "deploy")
        own(host.root, sys.stdin.read())
        print(json.dumps(result))


def publish() -> None:
    """Have the container of earlier versions hold the ports, and systemd from the next boot on."""
    host = Host()
    current = host.releases.current()
    assert current is not None
    service = SOCKETS_UNIT.replace(".socket", ".service")
    subprocess.run(["systemctl", "stop", SOCKETS_UNIT, service], check=True)
    # It has the sockets as well, and gets those of the container when it starts.
    subprocess.run(["docker", "stop", current.container("api")], check=True)
    host.compose.run(current.folder, "up", "--detach", "--no-deps", "door")
    host.docker.start(current.container("api"))


if __name__ == "__main__":
    publish() if sys.argv[1] == "door" else switch(sys.argv[1])
