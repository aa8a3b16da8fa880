"""The host's Docker engine: its API, where a command would cost time while requests are held."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import urllib.parse
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..commands import environment
from ..constants import PROJECT
from ..json_data import Facts
from .errors import Failure

DOCKER_SECONDS = 60.0
_DOCKER = "/var/run/docker.sock"
LOG_LINES = 15


class _Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    path: str,
    method: str,
    url: str,
    headers: Optional[Mapping[str, str]] = None,
    timeout: float = 60,
) -> Tuple[int, Any]:
    """(status, the JSON that was answered or None) of a request over the Unix socket at `path`."""
    connection = _Unix(path, timeout)
    try:
        connection.request(method, url, headers=dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text) if text else None
    except ValueError:
        return answer.status, None


class Docker:
    """The host's Docker engine: its API, where a command would cost time in a pause."""

    def container(self, name: str) -> Optional[Facts]:
        """What Docker says of a container; None where there is none of that name."""
        status, found = self._ask("GET", f"/containers/{name}/json")
        return found if status == 200 else None

    def running(self, name: str) -> bool:
        """Whether a container runs and Docker is not about to start it again."""
        found = self.container(name)
        return bool(found and found["State"]["Running"] and not found["State"]["Restarting"])

    def ours(self) -> Dict[str, str]:
        """Container name -> service, of all containers of the project but one-off ones."""
        wanted = {
            "label": [f"com.docker.compose.project={PROJECT}", "com.docker.compose.oneoff=False"]
        }
        query = urllib.parse.urlencode({"all": "true", "filters": json.dumps(wanted)})
        _, found = self._ask("GET", f"/containers/json?{query}")
        return {
            each["Names"][0].lstrip("/"): each["Labels"]["com.docker.compose.service"]
            for each in found or []
        }

    def start(self, name: str) -> None:
        """Start a container anew: one that Docker starts again and again, from nothing too."""
        self.stop(name, 10)
        self._do("POST", f"/containers/{name}/start", (204, 304))

    def stop(self, name: str, seconds: int) -> None:
        """Stop a container, which may be none or stopped already."""
        self._do(
            "POST", f"/containers/{name}/stop?t={seconds}", (204, 304, 404), timeout=seconds + 30
        )

    def kill(self, name: str, signal: str = "KILL") -> None:
        """Send a signal to a container; one that does not run is left alone."""
        self._do("POST", f"/containers/{name}/kill?signal={signal}", (204, 404, 409))

    def remove(self, name: str) -> None:
        """Remove a container, running or not, where there is one."""
        self._do("DELETE", f"/containers/{name}?force=true&v=true", (204, 404, 409))

    def has_image(self, reference: str) -> bool:
        """Whether an image is on the host."""
        status, _ = self._ask("GET", f"/images/{urllib.parse.quote(reference, safe='/:@')}/json")
        return status == 200

    def log(self, name: str, until: str = "") -> str:
        """The last lines that a container has written, as text; before `until`, where given."""
        return "\n".join(self.lines(name, until)[-LOG_LINES:])

    def lines(self, name: str, until: str = "") -> List[str]:
        """The last 500 lines that a container has written, without colours; all before `until`.

        With both, Docker would look at the last lines first, and only then at their times: an
        engine that has been started again since may have written more than those.
        """
        words = ["--until", until] if until else ["--tail", "500"]
        done = self.command("logs", *words, name)
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout + done.stderr).strip()
        return text.splitlines()

    def command(
        self, *words: str, timeout: Optional[float] = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a docker command to its end, whatever that is."""
        return subprocess.run(
            ["docker", *words], env=environment(), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=timeout, check=False,
        )  # fmt: skip

    def _do(
        self, method: str, url: str, accepted: Sequence[int], timeout: float = DOCKER_SECONDS
    ) -> None:
        status, answer = self._ask(method, url, timeout)
        if status not in accepted:
            words = answer.get("message") if isinstance(answer, dict) else None
            raise Failure(f"Docker answered {method} {url} with status {status}: {words}.")

    def _ask(self, method: str, url: str, timeout: float = DOCKER_SECONDS) -> Tuple[int, Any]:
        try:
            return ask(_DOCKER, method, url, timeout=timeout)
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"Docker does not answer at {_DOCKER}: {error}.") from error
