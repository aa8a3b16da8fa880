"""Who downloads which weights from whom: a file crosses the outside line once for the whole fleet.

Pure functions over hostvars, after the preflight role has planned the hosts: nothing here reads a
file or a host. The hosts that need the same files form a *chain*: its first one, the *fetcher*, has
them or gets them from their source, and each next one downloads from those before it what they
already have. Addresses are those of the inventory, whatever a host says of itself.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_fleet.host_names import subject_name
from edge_host.constants import DOWNLOAD_PACKAGES

LOCALHOST = "localhost"
CONTROL = "the control machine"
PREDECESSORS = 2
"""From how many hosts before it a host may download, if the nearest one fails."""
Hosts = Mapping[str, Mapping[str, Any]]
Resolve = Callable[[str], str | None]
"""Returns an address of a host name; None where it has none."""


class Group:
    """The hosts that need the same files from the same source, and the one that fetches them.

    Attributes:
        model: the model's part of the plan, of the first of them.
        members: their names, in the inventory's order.
        fetcher: the host that fetches, or on whose behalf the control machine does (`local`).
        token: whether the source requires a token of the fetcher.
        problem: why nobody can fetch, a phrase and what to do.
    """

    def __init__(
        self, hosts: Hosts, members: list[str], names: Sequence[str], final: bool = False
    ) -> None:
        first = hosts[members[0]]["preflight_plan"]
        self.hosts = hosts
        self.members = members
        self.model: dict[str, Any] = first["model"]
        self.mirror: str = first["sources"]["mirror"]
        cache: str = first["sources"]["cache"]
        self.token = bool(hosts[members[0]].get("llm_models_token"))
        self.problem = ""
        self.local = cache == LOCALHOST or self.mirror.startswith("/")
        # In the final round nobody depends on the word of another host.
        self.having = (
            []
            if final and cache == "auto"
            else [name for name in names if _has(hosts[name], self.model)]
        )
        if self.local:
            self.fetcher = members[0]
        elif cache != "auto":
            self.fetcher = cache
            if cache not in names:
                reason, remedy = (
                    ("is not part of this run", "Add that host to --limit, or set")
                    if cache in hosts
                    else ("is not in the inventory", "Set")
                )
                self.problem = (
                    f"llm_models_cache is invalid: the host {cache} {reason}."
                    f" {remedy} llm_models_cache to auto, localhost or a host of the inventory"
                )
        else:
            self.fetcher = self.having[0] if self.having else max(members, key=self._downloaded)

    @property
    def bundle(self) -> str:
        return str(self.model["bundle"])

    @property
    def first(self) -> str:
        """The machine that has the files first."""
        return CONTROL if self.local else self.fetcher

    @property
    def chain(self) -> list[str]:
        """All machines, each of which has the files after the one before it."""
        return [self.first, *(name for name in self.members if name != self.first)]

    def _downloaded(self, name: str) -> int:
        """Bytes that a member has already; of equals `max` takes the first."""
        come: int = self.hosts[name]["preflight_state"]["unfinished"].get(self.bundle, 0)
        # A host that says more than there is does not come before one that has all.
        return min(come, sum(int(file["size"]) for file in self.model["files"]))

    def has(self, name: str) -> bool:
        """Whether a host has, as far as it says, the files where its job expects them."""
        installed = self.hosts[name]["preflight_state"]["models"]
        return all(
            installed.get(file["path"], {}).get("recorded_sha256") == file["sha256"]
            for file in self.files(name)
        ) or self.bundle in received(self.hosts, name)

    def may_use_source(self, name: str) -> bool:
        """Whether a member may use the source; with a token only the first machine has it."""
        return name == self.first or not (self.token or self.mirror.startswith("/"))

    def files(self, name: str) -> list[dict[str, Any]]:
        """The files as a job has them, for a host or the control machine."""
        local = name == CONTROL
        own = {} if local else self.hosts[name].get("preflight_plan", {}).get("model", {})
        model = own if own.get("bundle") == self.bundle else self.model
        # A host that keeps weights for others keeps them apart from those that it serves.
        apart = model is not own
        folder = self.mirror if self.mirror.startswith("/") else ""
        return [
            {
                "name": file["name"],
                "path": f"{self.bundle}/{file['name']}" if apart else file["path"],
                "size": file["size"],
                "sha256": file["sha256"],
                "url": ""
                if folder or not self.may_use_source(name)
                else f"{self.mirror}/{file['place']}",
                # The control machine looks for the file there.
                "folder": folder if local else "",
                "place": file["place"],
                "header": model["header"] if file["part"] == "weights" else {},
            }
            for file in model["files"]
        ]


def groups(hosts: Hosts, names: Sequence[str], final: bool = False) -> list[Group]:
    """The groups of those among `names` that need files, and have not received them in this run."""
    found: dict[tuple[object, ...], list[str]] = {}
    for name in names:
        plan = hosts[name].get("preflight_plan")
        if not plan or plan["problems"] or plan["model"]["present"]:
            continue
        if plan["model"]["bundle"] not in received(hosts, name):
            sources = plan["sources"]
            # A host with another token or proxy may have access to files that others have not.
            access = (hosts[name].get(f"llm_models_{each}") for each in ("token", "proxy", "ca"))
            key = (plan["model"]["bundle"], sources["mirror"], sources["cache"], *access)
            found.setdefault(key, []).append(name)
    return [Group(hosts, members, names, final) for members in found.values()]


def _has(host: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    """Whether a host has a model's files, verified: its own, or kept for others."""
    plan = host.get("preflight_plan")
    if not plan or plan["problems"]:
        return False
    installed = host["preflight_state"]["models"]
    own = plan["model"] if plan["model"]["bundle"] == model["bundle"] else None
    candidates = [[file["path"] for file in own["files"]]] if own else []
    candidates.append([f"{model['bundle']}/{file['name']}" for file in model["files"]])
    hashes = [file["sha256"] for file in model["files"]]
    return any(
        [installed.get(path, {}).get("recorded_sha256") for path in paths] == hashes
        for paths in candidates
    )


def received(hosts: Hosts, name: str) -> list[str]:
    """The bundles that a host has received in this run."""
    found: list[str] = hosts[name].get("weights_received") or []
    return found


def fetch_jobs(hosts: Hosts, names: Sequence[str]) -> dict[str, Any]:
    """Who fetches which weights from their source, for the check of the sources.

    Args:
        hosts: hostvars.
        names: the hosts that can be reached, in the inventory's order.

    Returns:
        `unchecked` ({host: {bundle: job}}, as the model_source_info module takes them, of fetchers
        that do not have the files; `local` in a job where the control machine fetches on the host's
        behalf), `fetcher` ({host: its fetcher}), `fetches` ({fetcher: [bundle, ...]}), `packages`
        ({host: [package, ...]}, to be installed for the downloads), `problems` ({host: sentence}).
    """
    unchecked: dict[str, dict[str, Any]] = {}
    fetchers: dict[str, str] = {}
    fetches: dict[str, list[str]] = {}
    tools: dict[str, set[str]] = {}
    problems: dict[str, str] = {}
    for group in groups(hosts, names):
        if group.problem:
            problems |= {name: f"{name}: {group.problem}." for name in group.members}
            continue
        fetchers |= dict.fromkeys(group.members, group.fetcher)
        if group.bundle not in fetches.setdefault(group.fetcher, []):
            fetches[group.fetcher].append(group.bundle)
            if group.local or group.fetcher not in group.having:
                job = _job(group, group.first) | {"predecessors": [], "successors": []}
                unchecked.setdefault(group.fetcher, {})[group.bundle] = job
        for name in group.chain:
            if name != CONTROL and group.may_use_source(name) and name not in group.having:
                tools.setdefault(name, set()).add("curl")
    return {
        "unchecked": unchecked,
        "fetcher": fetchers,
        "fetches": fetches,
        "packages": {
            name: [DOWNLOAD_PACKAGES[each] for each in sorted(wanted - _tools(hosts[name]))]
            for name, wanted in tools.items()
        },
        "problems": problems,
    }


def _tools(host: Mapping[str, Any]) -> set[str]:
    return set(host["preflight_state"]["board"]["tools"])


@dataclass
class _Chain:
    """The machines that get the files of one bundle from each other, with the group of each."""

    groups: dict[str, Group] = field(default_factory=dict)

    def add(self, group: Group) -> bool:
        """Add the machines of a group, unless the chain has none of them."""
        if self.groups and not set(self.groups) & set(group.chain):
            return False
        own = dict.fromkeys(group.chain, group)
        earlier = next(iter(self.groups), "") not in group.chain[1:]
        one, other = (self.groups, own) if earlier else (own, self.groups)
        self.groups = one | {name: each for name, each in other.items() if name not in one}
        return True


def distribution_jobs(
    hosts: Hosts, names: Sequence[str], resolve: Resolve, final: bool = False
) -> dict[str, Any]:
    """Who downloads what from whom.

    Args:
        hosts: hostvars.
        names: the hosts that can be reached, in the inventory's order.
        resolve: see `Resolve`.
        final: whether this is the last attempt, for hosts that did not succeed in an earlier one.

    Returns:
        `jobs` and `control` ({host: {bundle: job}}, on the host and, on its behalf, on the control
        machine, as the model_fetch module takes them; `distribution` in a job is the same for those
        that take part in the same), `problems` ({host: sentence}), `notices` ({host: sentence}).
    """
    found: dict[str, dict[str, dict[str, Any]]] = {"jobs": {}, "control": {}}
    problems: dict[str, str] = {}
    notices: dict[str, str] = {}
    chains: dict[str, list[_Chain]] = {}
    for group in groups(hosts, names, final):
        if group.problem:
            problems |= {
                name: f"{name}: {group.model['name']} is missing: no host could fetch it. See the"
                " messages of the failed hosts above."
                for name in group.members
            }
        elif not any(chain.add(group) for chain in chains.get(group.bundle, [])):
            chains.setdefault(group.bundle, []).append(_Chain(dict.fromkeys(group.chain, group)))
    ports: dict[str, int] = {}
    for bundle, some in chains.items():
        for number, chain in enumerate(some):
            for name, group, job in _chain_jobs(hosts, chain, resolve, ports, notices):
                job["started_between"] = _started_between(names, chain, name, job)
                on = group.fetcher if name == CONTROL else name
                kind = "control" if name == CONTROL else "jobs"
                job["distribution"] = f"{bundle}/{number}"
                found[kind].setdefault(on, {})[bundle] = job
    return {**found, "problems": problems, "notices": notices}


def _chain_jobs(
    hosts: Hosts,
    chain: _Chain,
    resolve: Resolve,
    ports: dict[str, int],
    notices: dict[str, str],
) -> list[tuple[str, Group, dict[str, Any]]]:
    """The jobs of a chain: machine, its group, job. Adds to `ports` and `notices`."""
    first, *others = chain.groups
    addresses: dict[str, str] = {}
    for name in chain.groups:
        if name == CONTROL:
            addresses[name] = ""  # each host reaches it at another one
        elif len(chain.groups) > 1:
            address, problem = peer_address(hosts[name], name, resolve)
            if address:
                addresses[name] = address
            else:
                notices[name] = f"{name}: {problem}"
    # Those that nobody can download from are nobody's predecessor, so they are the last.
    others.sort(key=lambda name: name not in addresses)
    places = [first, *others]
    identities = {name: f"host-{number}" for number, name in enumerate(places)}
    before = {
        name: [each for each in reversed(places[:number]) if each in addresses][:PREDECESSORS]
        for number, name in enumerate(places)
    }
    after = {name: [each for each in places if name in before[each]] for name in places}
    at: dict[str, int] = {}
    for name in places:
        if after[name]:
            # Each machine, whatever its names, serves each bundle at a port of its own.
            machine = addresses[name] or CONTROL
            base = _port(hosts, chain.groups[name].fetcher if name == CONTROL else name)
            at[name] = ports[machine] = max(base, ports.get(machine, 0) + 1)
    return [
        (
            name,
            chain.groups[name],
            _job(chain.groups[name], name)
            | {
                "identity": identities[name],
                "port": at.get(name, 0),
                "predecessors": [
                    {
                        "name": each,
                        "address": addresses[each],
                        "port": at[each],
                        "identity": identities[each],
                    }
                    for each in before[name]
                ],
                "successors": [identities[each] for each in after[name]],
            },
        )
        for name in places
    ]


def _started_between(names: Sequence[str], chain: _Chain, name: str, job: Mapping[str, Any]) -> int:
    """How many hosts Ansible starts between a machine and the first of its predecessors.

    It starts them in the order of `names`, some at a time: a predecessor that is later in it may
    be minutes later in a large fleet. The control machine's own download starts before all others.
    """
    if name == CONTROL:
        return 0
    place = {each: number for number, each in enumerate(names)}
    later = [place.get(each["name"], 0) - place[name] for each in job["predecessors"]]
    return max(0, min(later, default=0))


def _port(hosts: Hosts, name: str) -> int:
    return int(hosts[name]["preflight_plan"]["sources"]["port"])


def _job(group: Group, name: str) -> dict[str, Any]:
    """A machine's job, without the machines that it has to do with."""
    if name != group.first:
        mode = "peers"
    else:
        mode = "share" if name != CONTROL and group.has(name) else "source"
    source = mode != "share" and group.may_use_source(name)
    return {
        "name": group.bundle,
        "mode": mode,
        "local": name == CONTROL,
        "files": group.files(name),
        "source": source,
        "token": source and group.token,
    }


def peer_address(host: Mapping[str, Any], name: str, resolve: Resolve) -> tuple[str | None, str]:
    """The address at which other hosts reach a host; None and why where there is none."""
    given = str(host.get("board_address") or host.get("ansible_host") or name)
    text = given.strip("[]")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        fits = subject_name(text) is not None and not re.fullmatch(r"[\d.]+", text)
        resolved = resolve(text) if fits else None
        if resolved is None:
            return None, _no_peer(given, "the control machine finds no address of that name")
        address = ipaddress.ip_address(resolved.partition("%")[0])
    for wrong, reason in (
        (address.is_loopback, "it is every host's own"),
        (address.is_link_local, "it is valid on one cable only"),
        (address.is_multicast, "it is no host's own"),
        (address.is_unspecified or address.is_reserved, "it is reserved"),
    ):
        if wrong:
            return None, _no_peer(given, reason)
    return str(address), ""


def _no_peer(given: str, reason: str) -> str:
    return (
        f"the address {given!r} is invalid for downloads of other hosts from this one: {reason}."
        " Set board_address or ansible_host to an address by which the other hosts reach it."
    )


def weights(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The files of a plan's model as the model_store module takes them."""
    return [
        {
            "file": file["path"],
            "size": file["size"],
            "sha256": file["sha256"],
            "bundle": model["bundle"],
        }
        for file in model["files"]
    ]
