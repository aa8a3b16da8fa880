"""The simulated boards of the benchmark: further addresses, and what they saw of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.fleet import sessions
from benchmarks.fleet.names import Host
from sandbox.docker import docker
from sandbox.instance import ROOT, Instance

COMPOSE_FILE = "/opt/edge-llm/docker-compose.yml"
_SSHD = "/etc/ssh/sshd_config.d/fleet-bench.conf"
_LINK = "/sys/class/net/eth0/statistics"
_SMALL_JOB = (
    "rm -rf /srv/fleet-bench; sed -i '/^# fleet-bench$/d' /etc/profile;"
    " ! id fleet-bench >/dev/null 2>&1 || userdel fleet-bench"
)


@dataclass(frozen=True)
class Seen:
    """Where a board's log ends, and the bytes that its link has carried both ways."""

    cursor: str
    carried: int


class Boards:
    """Boards of an instance of the sandbox, by name."""

    def __init__(self, instance: Instance, names: Sequence[str]) -> None:
        self._instance = instance
        self.names = list(names)

    def start(self) -> None:
        """Make and start those that do not run. Raises CalledProcessError."""
        subprocess.run(
            [sys.executable, "-m", "sandbox", "up", "--hosts", ",".join(self.names)],
            cwd=ROOT, env=os.environ | {"SANDBOX": self._instance.name}, check=True,
        )  # fmt: skip

    def shell(self, board: str, command: str) -> str:
        """Run a command on a board, past SSH. Raises SandboxError."""
        return docker("exec", self._instance.container(board), "sh", "-c", command)

    def host_keys(self) -> dict[str, str]:
        """The public host key of each board."""
        command = "cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub"
        return {board: self.shell(board, command) for board in self.names}

    @contextmanager
    def standing_for(self, hosts: Sequence[Host], silent: Host) -> Iterator[None]:
        """Give boards the addresses of all hosts, and let them count sessions, for the context.

        The silent address drops all it gets, as a host that is down behind a router: a connection
        is neither refused nor answered.
        """
        try:
            for board in self.names:
                self._set_up(board, [host.address for host in hosts if host.board == board])
            self.shell(self.names[0], _address("replace", silent.address))
            self.shell(self.names[0], f"iptables -I INPUT -d {silent.address} -j DROP")
            yield
        finally:
            self._clean_up(hosts, silent)

    def _set_up(self, board: str, addresses: Sequence[str]) -> None:
        self.shell(board, "; ".join(["set -e", *(_address("replace", each) for each in addresses)]))
        self.shell(board, f"cat > {_SSHD} <<'END'\n{sessions.CONFIGURATION}END\n")
        self.shell(board, "sshd -t && systemctl reload ssh")

    def _clean_up(self, hosts: Sequence[Host], silent: Host) -> None:
        """Take back what was done, as far as it was done."""
        for board in self.names:
            addresses = [host.address for host in hosts if host.board == board]
            if board == self.names[0]:
                self.shell(board, f"iptables -D INPUT -d {silent.address} -j DROP || true")
                addresses.append(silent.address)
            deleted = [f"{_address('delete', each)} || true" for each in addresses]
            self.shell(board, "; ".join([*deleted, f"rm -f {_SSHD}", "systemctl reload ssh"]))
            self.shell(board, _SMALL_JOB)

    def seen(self) -> dict[str, Seen]:
        """What each board has seen so far."""
        return {board: self._seen(board) for board in self.names}

    def _seen(self, board: str) -> Seen:
        text = self.shell(
            board,
            f"journalctl --sync; journalctl -q -n 0 --show-cursor; cat {_LINK}/[rt]x_bytes",
        )
        cursor, *carried = text.splitlines()
        return Seen(cursor.removeprefix("-- cursor: "), sum(int(each) for each in carried))

    def sessions_since(self, before: dict[str, Seen]) -> dict[str, int]:
        """SSH sessions since then, by address. Raises ValueError for an incomplete log."""
        found: dict[str, int] = {}
        for board, seen in before.items():
            log = self.shell(
                board,
                f"journalctl --sync; journalctl -q -o cat --after-cursor='{seen.cursor}'"
                " -t sshd -t sshd-session -t systemd-journald",
            )
            found |= sessions.count(log)
        return found

    def carried_since(self, before: dict[str, Seen]) -> int:
        """Bytes on the links of all boards since then."""
        return sum(self._seen(board).carried - seen.carried for board, seen in before.items())

    def drift(self, boards: Sequence[str]) -> None:
        """Change a file of the release by hand on each board."""
        for board in boards:
            self.shell(board, f"echo '# changed by hand' >> {COMPOSE_FILE}")


def _address(verb: str, address: str) -> str:
    return f"ip address {verb} {address}/32 dev eth0"
