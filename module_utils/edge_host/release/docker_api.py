"""The host's Docker engine by its API, as commands would take time while requests are held."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import urllib.parse
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..commands import environment
from ..constants import PROJECT
from ..host_info.docker import read_namespace
from ..json_data import Facts
from ..unix_http import UnixConnection
from .errors import ReleaseError

DOCKER_SECONDS = 60.0
STOP_BEFORE_START_SECONDS = 10
"""The time that a container gets to end, before it is started anew."""
_DOCKER = "/var/run/docker.sock"
LOG_LINES = 15


def send_request(
    path: str,
    method: str,
    url: str,
    headers: Optional[Mapping[str, str]] = None,
    timeout: float = 60,
) -> Tuple[int, Any]:
    """Send a request over the Unix socket at `path`: (status, the answer's JSON or None).

    Raises OSError, http.client.HTTPException.
    """
    connection = UnixConnection(path, timeout)
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
    """The host's Docker engine. Methods raise ReleaseError where it refuses or does not answer."""

    def inspect(self, name: str) -> Optional[Facts]:
        """Return Docker's description of a container; None where it does not exist."""
        status, found = self._request("GET", f"/containers/{name}/json")
        return found if status == 200 else None

    def is_running(self, name: str) -> bool:
        """Whether a container runs, and Docker is not about to restart it."""
        found = self.inspect(name)
        return bool(found and found["State"]["Running"] and not found["State"]["Restarting"])

    def is_joined(self, name: str, owner: str) -> bool:
        """Whether a container was created for the network namespace of the container `owner`.

        Docker refers to the owner by its id, so another one of the same name does not count.
        """
        found, other = self.inspect(name), self.inspect(owner)
        return bool(
            found
            and other
            and found["HostConfig"]["NetworkMode"]
            in (f"container:{owner}", f"container:{other['Id']}")
        )

    def shares_namespace(self, name: str, owner: str) -> bool:
        """Whether two containers run in the same network namespace.

        It ends for `owner` where that is restarted, while the other container keeps it.
        """
        namespace = self._read_namespace(name)
        return namespace is not None and namespace == self._read_namespace(owner)

    def _read_namespace(self, name: str) -> Optional[str]:
        found = self.inspect(name)
        return read_namespace(found["State"]["Pid"]) if found else None

    def list_containers(self) -> Dict[str, str]:
        """Return container name -> service, for all containers of the project but one-off ones."""
        wanted = {
            "label": [f"com.docker.compose.project={PROJECT}", "com.docker.compose.oneoff=False"]
        }
        query = urllib.parse.urlencode({"all": "true", "filters": json.dumps(wanted)})
        _, found = self._request("GET", f"/containers/json?{query}")
        return {
            each["Names"][0].lstrip("/"): each["Labels"]["com.docker.compose.service"]
            for each in found or []
        }

    def start(self, name: str) -> None:
        """Start a container; one that runs, or that Docker restarts again and again, is stopped
        first.
        """
        self.stop(name, STOP_BEFORE_START_SECONDS)
        self._send("POST", f"/containers/{name}/start", (204, 304))

    def stop(self, name: str, seconds: int) -> None:
        """Stop a container, which may be missing or stopped already."""
        self._send(
            "POST", f"/containers/{name}/stop?t={seconds}", (204, 304, 404), timeout=seconds + 30
        )

    def send_signal(self, name: str, signal: str) -> None:
        """Send a signal to a container; one that does not run is left alone."""
        self._send("POST", f"/containers/{name}/kill?signal={signal}", (204, 404, 409))

    def remove(self, name: str) -> None:
        """Remove a container, running or not, where it exists."""
        self._send("DELETE", f"/containers/{name}?force=true&v=true", (204, 404, 409))

    def remove_network(self, name: str) -> None:
        """Remove a network, where it exists and no container uses it."""
        self._send("DELETE", f"/networks/{name}", (204, 403, 404, 409))

    def has_image(self, reference: str) -> bool:
        """Whether an image is on the host."""
        url = f"/images/{urllib.parse.quote(reference, safe='/:@')}/json"
        status, _ = self._request("GET", url)
        return status == 200

    def read_log(self, name: str, until: str = "") -> str:
        """Return the last lines of a container's log as text; before `until`, where given."""
        return "\n".join(self.read_log_lines(name, until)[-LOG_LINES:])

    def read_log_lines(self, name: str, until: str = "") -> List[str]:
        """Return the last 500 lines of a container's log, without colours; all before `until`.

        With --tail and --until, Docker would take the last lines first, and only then compare
        times: an engine that was restarted since may have written more than those.
        """
        options = ["--until", until] if until else ["--tail", "500"]
        done = self.run_command("logs", *options, name)
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout + done.stderr).strip()
        return text.splitlines()

    def run_command(
        self, *arguments: str, timeout: Optional[float] = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a docker command; its exit status is not checked."""
        return subprocess.run(
            ["docker", *arguments], env=environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
        )  # fmt: skip

    def _send(
        self, method: str, url: str, accepted: Sequence[int], timeout: float = DOCKER_SECONDS
    ) -> None:
        status, answer = self._request(method, url, timeout)
        if status not in accepted:
            message = answer.get("message") if isinstance(answer, dict) else None
            raise ReleaseError(
                f"Docker refused {method} {url}: status {status}, {message}. Check `journalctl -u"
                " docker` on the host"
            )

    def _request(self, method: str, url: str, timeout: float = DOCKER_SECONDS) -> Tuple[int, Any]:
        try:
            return send_request(_DOCKER, method, url, timeout=timeout)
        except (OSError, http.client.HTTPException) as error:
            raise ReleaseError(
                f"Docker does not answer at {_DOCKER}: {error}. Check `systemctl status docker` on"
                " the host"
            ) from error
