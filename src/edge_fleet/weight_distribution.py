"""Who downloads which weights from whom: a file crosses the outside line once for the whole fleet.

Pure functions over hostvars, after the preflight role has planned the hosts: nothing here reads a
file or a host. Of the hosts that need the same files one *fetches* them from their source, and all
of them *distribute* them: those that have a file seed it, the others are leechers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_host.constants import DOWNLOAD_PACKAGES

LOCALHOST = "localhost"
CONTROL = "the control machine"
Hosts = Mapping[str, Mapping[str, Any]]


class Group:
    """The hosts that need the same files from the same source, and the one that fetches them.

    Attributes:
        model: the model's part of the plan, of the first of them.
        members: their names, in the inventory's order.
        fetcher: the host that fetches, or on whose behalf the control machine does (`local`).
        problem: why nobody can fetch, a phrase and what to do.
    """

    def __init__(self, hosts: Hosts, members: list[str], names: Sequence[str]) -> None:
        first = hosts[members[0]]["preflight_plan"]
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

    def _downloaded(self, name: str) -> int:
        """Bytes that a member has already; of equals `max` takes the first."""
        return int(self.hosts[name]["preflight_state"]["unfinished"].get(self.bundle, 0))

    def fetched_by(self) -> str | None:
        """The host that has fetched the files in this run."""
        for name in (self.fetcher, *self.members):
            if name in self.names and self.bundle in _fetched(self.hosts, name):
                return name
        return None

    @property
    def alone(self) -> bool:
        """Whether no other host waits for the files."""
        return self.members == [self.fetcher] and not self.local

    def files(self, name: str, *, local: bool = False) -> list[dict[str, Any]]:
        """The files as a job has them, for a host or (`local`) the control machine."""
        own = self.hosts[name].get("preflight_plan", {}).get("model", {})
        model = own if own.get("bundle") == self.bundle else self.model
        # A host that keeps weights for others keeps them apart from those that it serves.
        apart = local or model is not own
        folder = self.mirror if self.mirror.startswith("/") else ""
        return [
            {
                "name": file["name"],
                "path": f"{self.bundle}/{file['name']}" if apart else file["path"],
                "size": file["size"],
                "sha256": file["sha256"],
                "url": "" if folder else f"{self.mirror}/{file['place']}",
                # The control machine looks for the file there.
                "folder": folder if local else "",
                "place": file["place"],
                "header": model["header"] if file["part"] == "weights" else {},
            }
            for file in model["files"]
        ]


def groups(hosts: Hosts, names: Sequence[str]) -> list[Group]:
    """The groups of those among `names` that need files."""
    found: dict[tuple[object, ...], list[str]] = {}
    for name in names:
        plan = hosts[name].get("preflight_plan")
        if plan and not plan["problems"] and not plan["model"]["present"]:
            sources = plan["sources"]
            # A host with another token or proxy may have access to files that others have not.
            access = (hosts[name].get(f"llm_models_{each}") for each in ("token", "proxy", "ca"))
            key = (plan["model"]["bundle"], sources["mirror"], sources["cache"], *access)
            found.setdefault(key, []).append(name)
    return [Group(hosts, members, names) for members in found.values()]


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


def _fetched(hosts: Hosts, name: str) -> dict[str, str]:
    """Bundle -> torrent of what a host has fetched in this run; empty where nobody waits for it."""
    found: dict[str, str] = hosts[name].get("weights_fetched") or {}
    return found


def _job(group: Group, name: str, mode: str, local: bool) -> dict[str, Any]:
    return {
        "name": group.bundle,
        "mode": mode,
        "local": local,
        "share": not group.alone,
        "files": group.files(name, local=local),
    }


def fetch_jobs(hosts: Hosts, names: Sequence[str]) -> dict[str, Any]:
    """Who fetches which weights from their source.

    Args:
        hosts: hostvars.
        names: the hosts that can be reached, in the inventory's order.

    Returns:
        `jobs` ({host: {bundle: job}}, as the model_fetch module takes them; `local` in a job where
        the control machine does it on the host's behalf), `unchecked` (those of them whose source
        has to be checked, since the fetcher does not have the files), `fetcher` ({host: its
        fetcher}), `packages` ({host: [package, ...]}, to be installed for that), `problems` ({host:
        sentence}). Weights that were fetched in this run are left out.
    """
    jobs: dict[str, dict[str, Any]] = {}
    unchecked: dict[str, dict[str, Any]] = {}
    fetchers: dict[str, str] = {}
    tools: dict[str, set[str]] = {}
    problems: dict[str, str] = {}
    for group in groups(hosts, names):
        if group.fetched_by():
            continue
        if group.problem:
            problems |= {name: f"{name}: {group.problem}." for name in group.members}
            continue
        fetchers |= dict.fromkeys(group.members, group.fetcher)
        job = _job(group, group.fetcher, "source", group.local)
        jobs.setdefault(group.fetcher, {})
        if group.bundle in jobs[group.fetcher]:
            # It fetches them for another group already: whatever the source, they are the same.
            jobs[group.fetcher][group.bundle]["share"] = True
        else:
            jobs[group.fetcher][group.bundle] = job
            if group.local or group.fetcher not in group.having:
                unchecked.setdefault(group.fetcher, {})[group.bundle] = job
        leechers = set() if group.alone else set(group.members)
        if not group.local:
            tools.setdefault(group.fetcher, set()).add("curl")
            leechers |= set() if group.alone else {group.fetcher}
        for name in leechers:
            tools.setdefault(name, set()).add("aria2c")
    return {
        "jobs": jobs,
        "unchecked": unchecked,
        "fetcher": fetchers,
        "packages": {
            name: [DOWNLOAD_PACKAGES[each] for each in sorted(wanted - _tools(hosts[name]))]
            for name, wanted in tools.items()
        },
        "problems": problems,
    }


def _tools(host: Mapping[str, Any]) -> set[str]:
    return set(host["preflight_state"]["board"]["tools"])


def distribution_jobs(hosts: Hosts, names: Sequence[str]) -> dict[str, Any]:
    """Who seeds what to whom, once it has been fetched.

    Returns:
        `seed` and `leech` ({host: {bundle: job}}; a job has its torrent), `problems` ({host:
        sentence}).
    """
    seed: dict[str, dict[str, Any]] = {}
    leech: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    # Each machine seeds each bundle at a port of its own.
    ports: dict[str, int] = {}

    def port(machine: str, name: str) -> int:
        base = int(hosts[name]["preflight_plan"]["sources"]["port"])
        ports[machine] = ports.get(machine, base - 1) + 1
        return ports[machine]

    # Groups that have the same seeder of the same files are one.
    found: dict[tuple[str, str], tuple[Group, str, list[str]]] = {}
    for group in groups(hosts, names):
        fetcher = group.fetched_by()
        leechers = [name for name in group.members if group.local or name != fetcher]
        if leechers and fetcher is None:
            problems |= {
                name: f"{name}: {group.model['name']} is missing: no host could fetch it. See the"
                " messages of the failed hosts above."
                for name in leechers
            }
        elif leechers and fetcher:
            seeder = CONTROL if group.local else fetcher
            found.setdefault((seeder, group.bundle), (group, fetcher, []))[2].extend(leechers)
    for (seeder, bundle), (group, fetcher, leechers) in found.items():
        at = {name: port(name, name) for name in leechers} | {seeder: port(seeder, fetcher)}
        peers = [
            f"{address}:{number}"
            for name, number in at.items()
            if name != CONTROL
            for address in dict.fromkeys(hosts[name]["preflight_state"]["board"]["addresses"])
        ]
        shared = {"torrent": _fetched(hosts, fetcher)[bundle], "peers": peers}
        job = _job(group, fetcher, "share", group.local)
        seed.setdefault(fetcher, {})[bundle] = job | shared | {"port": at[seeder]}
        for name in leechers:
            job = _job(group, name, "peers", local=False) | shared | {"port": at[name]}
            if group.local:
                job["control_port"] = at[seeder]
            leech[name] = {bundle: job}
    return {"seed": seed, "leech": leech, "problems": problems}


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
