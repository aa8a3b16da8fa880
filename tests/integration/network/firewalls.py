"""Docker's rule sets (`rules/`), and how a board gets them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.integration.network.lan import Namespace

RULES = Path(__file__).parent / "rules"
BACKENDS = ("nft", "legacy")
POLICIES = ("ACCEPT", "DROP")

_TABLES = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
}
_EMPTY = "".join(
    f"*{table}\n{''.join(f':{chain} ACCEPT [0:0]{chr(10)}' for chain in chains)}COMMIT\n"
    for table, chains in _TABLES.items()
)
# Docker's own table of nftables has no policy; a host's firewall is another table.
_POLICY = """
table inet host {{
    chain forward {{
        type filter hook forward priority filter + 10; policy {policy};
        ct state established,related accept
    }}
}}
"""


@dataclass(frozen=True)
class Firewall:
    """Docker's rules of one version, and what a board loads them with.

    `folder` is below RULES. `backend` is what iptables is on the board, nft or legacy; empty for
    rules of nftables itself. `policy` is for forwarded packets that no rule decides about.
    """

    folder: str
    backend: str
    policy: str

    def __str__(self) -> str:
        return "-".join(filter(None, (self.folder, self.backend, self.policy)))

    def load(self, board: Namespace, layout: str) -> None:
        """Replace the board's rules by those of a layout, `earlier` or `current`."""
        board.run("nft", "flush", "ruleset")
        for tool in ("iptables", "ip6tables"):
            board.run(f"{tool}-legacy-restore", "--wait", given=_EMPTY)
        rules = RULES / self.folder / layout
        if not self.backend:
            board.run("nft", "-f", str(rules.with_suffix(".nft")))
            board.run("nft", "-f", "-", given=_POLICY.format(policy=self.policy.lower()))
            return
        for tool, suffix in (("iptables", ".ipv4"), ("ip6tables", ".ipv6")):
            command = f"{tool}-{self.backend}"
            board.run(f"{command}-restore", "--wait", given=rules.with_suffix(suffix).read_text())
            board.run(command, "--wait", "-P", "FORWARD", self.policy)


def all_firewalls() -> list[Firewall]:
    """Every rule set with everything that can load it, and both policies."""
    return [
        Firewall(folder.name, backend, policy)
        for folder in sorted(RULES.iterdir())
        for backend in ([""] if (folder / "current.nft").exists() else BACKENDS)
        for policy in POLICIES
    ]
