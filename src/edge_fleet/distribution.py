"""Who brings which weights to whom: each file crosses the outside line once for the whole fleet.

Pure functions over hostvars, after the board role has planned the hosts: nothing here reads a file
or a host. Of those who need the same files one asks the source (it *brings* them), and all give
each other what they have (they *hand it on*).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_host.constants import DOWNLOAD_PACKAGES

LOCALHOST = "localhost"
CONTROL = "the control machine"
Hosts = Mapping[str, Mapping[str, Any]]


class Group:
    """Those who need the same files from the same place, and the one who brings them.

    Attributes:
        model: the model's part of the plan, of the first of them.
        members: their names, in the inventory's order.
        bringer: the host that brings, or on whose behalf the control machine does (`local`).
        problem: why nobody can bring, a phrase.
    """

    def __init__(self, hosts: Hosts, members: list[str], names: Sequence[str]) -> None:
        first = hosts[members[0]]["board_plan"]
        self.hosts = hosts
        self.names = names
        self.members = members
        self.model: dict[str, Any] = first["model"]
        self.mirror: str = first["sources"]["mirror"]
        cache: str = first["sources"]["cache"]
        self.problem = ""
        self.local = cache == LOCALHOST or self.mirror.startswith("/")
        self.having = [name for name in names if _has(hosts[name], self.model)]
        if self.local:
            self.bringer = members[0]
        elif cache != "auto":
            self.bringer = cache
            if cache not in names:
                self.problem = (
                    f"llm_models_cache is {cache}, which "
                    + ("this run does not reach" if cache in hosts else "the inventory has not")
                    + "; accepted are auto, localhost and a host of the inventory"
                    + (" (add it to --limit)" if cache in hosts else "")
                )
        else:
            self.bringer = self.having[0] if self.having else max(members, key=self._come)

    @property
    def bundle(self) -> str:
        return str(self.model["bundle"])

    def _come(self, name: str) -> int:
        """Bytes that a member has already; of equals `max` takes the first."""
        return int(self.hosts[name]["board_state"]["unfinished"].get(self.bundle, 0))

    def brought_by(self) -> str | None:
        """Who of them has brought the files in this run."""
        for name in (self.bringer, *self.members):
            if name in self.names and self.bundle in _brought(self.hosts, name):
                return name
        return None

    @property
    def alone(self) -> bool:
        """Whether nobody else waits for what is brought."""
        return self.members == [self.bringer] and not self.local

    def files(self, name: str, *, local: bool = False) -> list[dict[str, Any]]:
        """The files as a job has them, for a host or (`local`) the control machine."""
        own = self.hosts[name].get("board_plan", {}).get("model", {})
        model = own if own.get("bundle") == self.bundle else self.model
        # Who keeps it for others has it apart from what it serves itself.
        apart = local or model is not own
        folder = self.mirror if self.mirror.startswith("/") else ""
        return [
            {
                "name": file["name"],
                "path": f"{self.bundle}/{file['name']}" if apart else file["path"],
                "size": file["size"],
                "sha256": file["sha256"],
                "url": "" if folder else f"{self.mirror}/{file['place']}",
                # Found there by the controller, which can look.
                "folder": folder if local else "",
                "place": file["place"],
                "header": model["header"] if file["part"] == "weights" else {},
            }
            for file in model["files"]
        ]


def groups(hosts: Hosts, names: Sequence[str]) -> list[Group]:
    """The groups of those among `names` who need files."""
    found: dict[tuple[object, ...], list[str]] = {}
    for name in names:
        plan = hosts[name].get("board_plan")
        if plan and not plan["problems"] and not plan["model"]["present"]:
            sources = plan["sources"]
            # Who has another token or proxy may be given what others are not.
            access = (hosts[name].get(f"llm_models_{each}") for each in ("token", "proxy", "ca"))
            key = (plan["model"]["bundle"], sources["mirror"], sources["cache"], *access)
            found.setdefault(key, []).append(name)
    return [Group(hosts, members, names) for members in found.values()]


def _has(host: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    """Whether a host has a model's files, verified: its own, or kept for others."""
    plan = host.get("board_plan")
    if not plan or plan["problems"]:
        return False
    there = host["board_state"]["models"]
    own = plan["model"] if plan["model"]["bundle"] == model["bundle"] else None
    ways = [[file["path"] for file in own["files"]]] if own else []
    ways.append([f"{model['bundle']}/{file['name']}" for file in model["files"]])
    hashes = [file["sha256"] for file in model["files"]]
    return any(
        [there.get(path, {}).get("recorded_sha256") for path in paths] == hashes for paths in ways
    )


def _brought(hosts: Hosts, name: str) -> dict[str, str]:
    """Bundle -> torrent of what a host has brought in this run; none where nobody waits for it."""
    found: dict[str, str] = hosts[name].get("models_brought") or {}
    return found


def _work(group: Group, name: str, how: str, local: bool) -> dict[str, Any]:
    return {
        "name": group.bundle,
        "how": how,
        "local": local,
        "share": not group.alone,
        "files": group.files(name, local=local),
    }


def bring(hosts: Hosts, names: Sequence[str]) -> dict[str, Any]:
    """Who asks which source: {"works": {host: {bundle: work}}, "ask": the same, "for": {host:
    bringer}, "tools": {host: [package, ...]}, "problems": {host: sentence}}.

    A work is what the model_fetch module takes; `local` where the control machine does it on the
    host's behalf. What has been brought in this run is left out. Of `ask` are those whose bringer
    has not the files itself: their source is asked beforehand. `tools` are what the hosts need
    for it and do not have. `names` are the hosts that can be reached, in the inventory's order.
    """
    works: dict[str, dict[str, Any]] = {}
    asks: dict[str, dict[str, Any]] = {}
    for_whom: dict[str, str] = {}
    tools: dict[str, set[str]] = {}
    problems: dict[str, str] = {}
    for group in groups(hosts, names):
        if group.brought_by():
            continue
        if group.problem:
            problems |= {name: f"{name}: {group.problem}." for name in group.members}
            continue
        for_whom |= dict.fromkeys(group.members, group.bringer)
        work = _work(group, group.bringer, "source", group.local)
        works.setdefault(group.bringer, {})
        if group.bundle in works[group.bringer]:
            # It brings them for another group already: whatever the source, they are the same.
            works[group.bringer][group.bundle]["share"] = True
        else:
            works[group.bringer][group.bundle] = work
            if group.local or group.bringer not in group.having:
                asks.setdefault(group.bringer, {})[group.bundle] = work
        taking = set() if group.alone else set(group.members)
        if not group.local:
            tools.setdefault(group.bringer, set()).add("curl")
            taking |= set() if group.alone else {group.bringer}
        for name in taking:
            tools.setdefault(name, set()).add("aria2c")
    return {
        "works": works,
        "ask": asks,
        "for": for_whom,
        "tools": {
            name: [DOWNLOAD_PACKAGES[each] for each in sorted(wanted - _tools(hosts[name]))]
            for name, wanted in tools.items()
        },
        "problems": problems,
    }


def _tools(host: Mapping[str, Any]) -> set[str]:
    return set(host["board_state"]["board"]["tools"])


def hand_on(hosts: Hosts, names: Sequence[str]) -> dict[str, Any]:
    """Who gives what to whom, once it has been brought: {"give": {host: {bundle: work}}, "take":
    {host: {bundle: work}}, "problems": {host: sentence}}; a work has its torrent.
    """
    give: dict[str, dict[str, Any]] = {}
    take: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    # Each machine gives each bundle at a port of its own.
    ports: dict[str, int] = {}

    def port(machine: str, name: str) -> int:
        base = int(hosts[name]["board_plan"]["sources"]["port"])
        ports[machine] = ports.get(machine, base - 1) + 1
        return ports[machine]

    # Groups that have the same giver of the same files are one.
    found: dict[tuple[str, str], tuple[Group, str, list[str]]] = {}
    for group in groups(hosts, names):
        bringer = group.brought_by()
        takers = [name for name in group.members if group.local or name != bringer]
        if takers and bringer is None:
            problems |= {
                name: f"{name}: nobody could bring {group.model['name']}: see the message above."
                for name in takers
            }
        elif takers and bringer:
            giver = CONTROL if group.local else bringer
            found.setdefault((giver, group.bundle), (group, bringer, []))[2].extend(takers)
    for (giver, bundle), (group, bringer, takers) in found.items():
        at = {name: port(name, name) for name in takers} | {giver: port(giver, bringer)}
        peers = [
            f"{address}:{number}"
            for name, number in at.items()
            if name != CONTROL
            for address in dict.fromkeys(hosts[name]["board_state"]["board"]["addresses"])
        ]
        shared = {"torrent": _brought(hosts, bringer)[bundle], "peers": peers}
        work = _work(group, bringer, "share", group.local)
        give.setdefault(bringer, {})[bundle] = work | shared | {"port": at[giver]}
        for name in takers:
            work = _work(group, name, "peers", local=False) | shared | {"port": at[name]}
            if group.local:
                work["control_port"] = at[giver]
            take[name] = {bundle: work}
    return {"give": give, "take": take, "problems": problems}


def cached_images(hosts: Hosts, names: Sequence[str], cache: str) -> list[dict[str, str]]:
    """The images that a host is to have in its registry, since others lack them: reference (as they
    pull it) and outside of each.
    """
    found: dict[str, str] = {}
    for name in names:
        plan = hosts[name].get("board_plan")
        if not plan or plan["problems"] or plan["images"]["cache"] != cache:
            continue
        deployment = hosts[name]["board_state"]["deployment"]
        there = set(deployment["images"])
        # What the chat API's image was built on has served its purpose, and may be gone.
        if release := deployment["release"]:
            there.add(release["plan"]["api"]["base_image"])
        for reference, outside in plan["images"]["outside"].items():
            if reference not in there:
                found[reference] = outside
    return [{"reference": reference, "outside": outside} for reference, outside in found.items()]


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
