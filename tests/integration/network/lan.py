"""A board, its containers and a neighbour on one link: network namespaces and nothing else.

A namespace lives as long as the process that holds it, and takes its links and rules with it. All
processes end with their standard input, so with the tests, however these end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tests.waiting import until

TOOLS = (
    *("ip", "nft", "nsenter", "sysctl", "unshare"),
    *("iptables-nft", "iptables-nft-restore", "ip6tables-nft", "ip6tables-nft-restore"),
    *("iptables-legacy", "iptables-legacy-restore", "ip6tables-legacy", "ip6tables-legacy-restore"),
)
SECONDS = 120

BOARD = {4: "198.51.100.1", 6: "fd51::1"}
NEIGHBOUR = {4: "198.51.100.2", 6: "fd51::2"}
DOCKER0 = "172.17.0.1"
OURS = {4: "172.18.0.1", 6: "fd18::1"}
"""The board on the bridge of earlier versions."""
OTHERS = {4: "172.19.0.1", 6: "fd19::1"}
"""The board on the bridge of somebody else's container."""
HOLDER = {4: "172.18.0.2", 6: "fd18::2"}
ENGINE = {4: "172.18.0.3", 6: "fd18::3"}
OTHER = {4: "172.19.0.2", 6: "fd19::2"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
ANY = {4: "0.0.0.0", 6: "::"}

# Says who it is to everyone who connects, or as `peer` who has connected: name, host, port, and
# so on.
_SERVER = """
import selectors, socket, sys
waiting = selectors.DefaultSelector()
waiting.register(sys.stdin, selectors.EVENT_READ)
for name, host, port in zip(*[iter(sys.argv[1:])] * 3):
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in host:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((host, int(port)))
    made.listen()
    waiting.register(made, selectors.EVENT_READ, name)
print("listening", flush=True)
while True:
    for key, _ in waiting.select():
        if key.data is None:
            sys.exit()
        connection, address = key.fileobj.accept()
        with connection:
            connection.sendall((address[0] if key.data == "peer" else key.data).encode())
"""
# Reads lists of targets, and connects to all of a list at once: what a rule drops costs the same
# time for one and for many.
_PROBE = """
import json, selectors, socket, sys, time
for line in sys.stdin:
    seconds, targets = json.loads(line)
    answers = [""] * len(targets)
    waiting = selectors.DefaultSelector()
    for index, (host, port) in enumerate(targets):
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.setblocking(False)
        made.connect_ex((host, port))
        # A connection is there, and has failed, as soon as there is something to read.
        waiting.register(made, selectors.EVENT_READ, index)
    end = time.monotonic() + seconds
    while waiting.get_map() and (left := end - time.monotonic()) > 0:
        for key, _ in waiting.select(left):
            waiting.unregister(key.fileobj)
            try:
                answers[key.data] = key.fileobj.recv(64).decode()
            except OSError:
                pass
            key.fileobj.close()
    for key in [*waiting.get_map().values()]:
        key.fileobj.close()
    waiting.close()
    print(json.dumps(answers), flush=True)
"""
Target = tuple[str, int]


@dataclass
class Namespace:
    """A network namespace, held by a process (`pid`) that waits."""

    holder: subprocess.Popen[str]
    pid: int
    programs: list[subprocess.Popen[str]] = field(default_factory=list)
    _prober: subprocess.Popen[str] | None = None

    def command(self, *words: str) -> list[str]:
        return [*_as_root(), "nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *words]

    def run(self, *words: str, given: str | None = None) -> str:
        """Run a command to its end; what it printed. Raises AssertionError where it fails."""
        done = subprocess.run(
            self.command(*words),
            input=given, capture_output=True, text=True, check=False, timeout=SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Run commands of `ip`, one a line."""
        self.run("ip", "-batch", "-", given="\n".join(lines))

    def serve(self, *listeners: tuple[str, str, int]) -> None:
        """Listen: a name, which everyone who connects is told, an address and a port for each."""
        words = [str(word) for each in listeners for word in each]
        server = self._start(_SERVER, *words)
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"

    def probe(self, targets: Sequence[Target], seconds: float = 1) -> dict[Target, str]:
        """Connect to each target; who answered, of those where anyone did."""
        if self._prober is None:
            self._prober = self._start(_PROBE)
        assert self._prober.stdin is not None and self._prober.stdout is not None
        print(json.dumps([seconds, targets]), file=self._prober.stdin, flush=True)
        told = json.loads(self._prober.stdout.readline())
        return {target: name for target, name in zip(targets, told, strict=True) if name}

    def _start(self, program: str, *words: str) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            self.command(sys.executable, "-I", "-c", program, *words),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.programs.append(started)
        return started

    def close(self) -> None:
        for process in (*self.programs, self.holder):
            process.communicate(timeout=SECONDS)


@dataclass(frozen=True)
class Lan:
    """A board with its containers, by their names, and a neighbour."""

    board: Namespace
    neighbour: Namespace
    containers: Mapping[str, Namespace]


def _as_root() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]


@contextmanager
def _made(*names: str) -> Iterator[Lan]:
    """Make a board, a neighbour and namespaces for containers; all of it ends with this."""
    missing = [each for each in (*TOOLS, *_as_root()[:1]) if shutil.which(each) is None]
    assert not missing, f"{', '.join(missing)} is missing. Install iproute2, iptables and nftables."
    with ExitStack() as stack:

        def namespace() -> Namespace:
            # In the new namespace once it speaks.
            holder = subprocess.Popen(
                [*_as_root(), "unshare", "--net", "sh", "-c", "echo $$; exec cat"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert holder.stdout is not None
            found = Namespace(holder, int(holder.stdout.readline()))
            stack.callback(found.close)
            # Addresses can be used at once.
            found.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
            return found

        lan = Lan(namespace(), namespace(), {name: namespace() for name in names})
        _link(lan.board, lan.neighbour)
        yield lan


@contextmanager
def earlier() -> Iterator[Lan]:
    """The layout of versions up to 0.1: engine and socket holder on a bridge."""
    with _made("engine", "holder") as lan:
        _add_bridge(lan.board, "edge-llm", OURS)
        for name, own in (("engine", ENGINE), ("holder", HOLDER)):
            _attach(lan.board, "edge-llm", OURS, lan.containers[name], own)
        lan.containers["engine"].serve(*(("engine", ANY[family], 8080) for family in ANY))
        lan.containers["holder"].serve(*(("holder", ANY[family], 11434) for family in ANY))
        lan.board.serve(*(("board", ANY[family], 22) for family in ANY))
        _wait(lan, [(ENGINE[family], 8080) for family in ANY])
        _wait(lan, [(HOLDER[family], 11434) for family in ANY])
        yield lan


@contextmanager
def current() -> Iterator[Lan]:
    """This version's layout, and somebody else's container on a bridge.

    Engines in a namespace with the loopback interface alone, the ports held by the board itself.
    """
    with _made("pod", "other") as lan:
        pod, other = lan.containers["pod"], lan.containers["other"]
        _add_bridge(lan.board, "edge-llm", OURS)
        _add_bridge(lan.board, "others", OTHERS)
        _attach(lan.board, "others", OTHERS, other, OTHER)
        other.serve(*(("other", ANY[family], 8080) for family in ANY))
        pod.ip("link set lo up")
        slots = [(f"engine {port}", port) for port in (11434, 11435)]
        pod.serve(*((name, LOOPBACK[4], port) for name, port in slots))
        api = [("api", ANY[family], 8000) for family in ANY]
        lan.board.serve(*api, ("engine port", LOOPBACK[4], 11434))
        _wait(lan, [(OTHER[family], 8080) for family in ANY])
        _wait(lan, [(BOARD[family], 8000) for family in ANY])
        yield lan


def _wait(lan: Lan, targets: list[Target]) -> None:
    """Wait until the neighbour reaches all targets, as it does while no rule is loaded."""
    until(
        lambda: lan.neighbour.probe(targets),
        f"the neighbour's way to {targets}",
        lambda reached: len(reached) == len(targets),
        seconds=SECONDS,
    )


def _link(board: Namespace, neighbour: Namespace) -> None:
    board.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    board.ip(
        "link set lo up",
        f"link add eth0 type veth peer name eth0 netns {neighbour.pid}",
        f"address add {BOARD[4]}/24 dev eth0",
        f"address add {BOARD[6]}/64 dev eth0 nodad",
        "link set eth0 up",
        "link add docker0 type bridge",
        f"address add {DOCKER0}/16 dev docker0",
        "link set docker0 up",
    )
    # Its own loopback interface stays down: packets to 127.0.0.1 and ::1 take the route.
    neighbour.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    neighbour.ip(
        f"address add {NEIGHBOUR[4]}/24 dev eth0",
        f"address add {NEIGHBOUR[6]}/64 dev eth0 nodad",
        "link set eth0 up",
        *(f"route add {net} via {BOARD[4]}" for net in ("172.16.0.0/12", "127.0.0.1/32")),
        *(f"route add {net} via {BOARD[6]}" for net in ("fd18::/64", "fd19::/64", "::1/128")),
    )


def _add_bridge(board: Namespace, name: str, own: Mapping[int, str]) -> None:
    board.ip(
        f"link add {name} type bridge",
        f"address add {own[4]}/16 dev {name}",
        f"address add {own[6]}/64 dev {name} nodad",
        f"link set {name} up",
    )
    # As dockerd sets it without its userland proxy.
    board.run("sysctl", "-qw", f"net.ipv4.conf.{name}.route_localnet=1")


def _attach(
    board: Namespace,
    bridge: str,
    gateway: Mapping[int, str],
    container: Namespace,
    own: Mapping[int, str],
) -> None:
    name = f"veth{container.pid}"
    board.ip(
        f"link add {name} type veth peer name eth0 netns {container.pid}",
        f"link set {name} master {bridge}",
        f"link set {name} up",
    )
    container.ip(
        "link set lo up",
        f"address add {own[4]}/16 dev eth0",
        f"address add {own[6]}/64 dev eth0 nodad",
        "link set eth0 up",
        f"route add 0.0.0.0/0 via {gateway[4]}",
        f"route add ::/0 via {gateway[6]}",
    )
