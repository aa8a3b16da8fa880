"""What an instance of the sandbox is: its names, addresses, hosts and folders.

Two instances can live side by side: `main` is the person's (`make up`), `test` is the tests'.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxError

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".sandbox"
CACHE = STATE / "cache"
LOGS = STATE / "logs"

LABEL = "edge-llm.sandbox"
"""Label on every Docker object; its value is an instance's name, or SHARED."""
SHARED = "images"
"""Label value of what all instances use: images and the registry's data."""

# 198.18.0.0/15 is set aside for benchmarks (RFC 2544): it collides with nobody's network.
_THIRD_OCTET = {"main": 40, "test": 41}
INSTANCES = tuple(_THIRD_OCTET)
_REGISTRY_OCTET, _HUB_OCTET = 2, 3
REGISTRY_PORT = 5000


@dataclass(frozen=True)
class Host:
    """A simulated board: the last octet of its address, what it looks like, what is odd about it.

    `traits` are words that /init understands; `options` go to `docker run`.
    """

    octet: int
    board: str
    traits: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


HOSTS: Mapping[str, Host] = {
    "jetson-01": Host(11, "jetson"),
    "pi-01": Host(12, "pi"),
    "bare-01": Host(21, "bare"),
    "bare-02": Host(22, "bare", options=("--tmpfs", "/opt:size=60m,exec")),
    "bare-03": Host(23, "bare", traits=("port-8000-taken",)),
    "bare-04": Host(24, "bare", traits=("no-python",)),
    "bare-05": Host(25, "bare", traits=("alpine",)),
    # They come back from a reboot by themselves, as boards do.
    "issue-01": Host(26, "jetson", ("jetson-issues",), ("--restart=always",)),
    "issue-02": Host(27, "pi", ("pi-issues",), ("--restart=always",)),
    "issue-03": Host(28, "bare", traits=("old-python",)),
    # A fleet, to measure what comes to many at once.
    **{f"field-{n:02}": Host(30 + n, "bare") for n in range(1, 39)},
}
DEFAULT_HOSTS = ("jetson-01", "pi-01")


@dataclass(frozen=True)
class Instance:
    """Names and addresses of one sandbox."""

    name: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Instance:
        """The instance that SANDBOX names (default main). Raises SandboxError on another word."""
        name = environ.get("SANDBOX", "main")
        if name not in _THIRD_OCTET:
            accepted = " or ".join(_THIRD_OCTET)
            raise SandboxError(f"SANDBOX is {name!r}; it would have to be {accepted}.")
        return cls(name)

    @property
    def state(self) -> Path:
        return STATE / self.name

    @property
    def key(self) -> Path:
        """Private SSH key that every board of this instance lets in as root."""
        return self.state / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    @property
    def network(self) -> str:
        return f"edge-llm-{self.name}"

    @property
    def subnet(self) -> str:
        return f"198.18.{_THIRD_OCTET[self.name]}.0/24"

    def address(self, octet: int) -> str:
        return f"198.18.{_THIRD_OCTET[self.name]}.{octet}"

    @property
    def registry_address(self) -> str:
        return self.address(_REGISTRY_OCTET)

    @property
    def registry(self) -> str:
        """The registry as boards name it in image references: ADDRESS:PORT."""
        return f"{self.registry_address}:{REGISTRY_PORT}"

    @property
    def hub_address(self) -> str:
        return self.address(_HUB_OCTET)

    def container(self, host: str) -> str:
        """Container name of a board; in `main` it is the host's own name."""
        return host if self.name == "main" else f"{self.name}-{host}"

    def service(self, service: str) -> str:
        """Container name of the registry or the hub."""
        return f"{self.network}-{service}"

    def volume(self, host: str) -> str:
        """Volume that holds a board's /var/lib/docker."""
        return f"{self.network}-{host}"


def hosts_named(words: str | None) -> list[str]:
    """Host names from a comma-separated list (None: the default pair). Raises SandboxError."""
    if words is None:
        return list(DEFAULT_HOSTS)
    names = [word.strip() for word in words.split(",") if word.strip()]
    unknown = [name for name in names if name not in HOSTS]
    if unknown or not names:
        asked = ", ".join(unknown) or "no host at all"
        raise SandboxError(f"The sandbox was asked for {asked}; it knows {', '.join(HOSTS)}.")
    return list(dict.fromkeys(names))
