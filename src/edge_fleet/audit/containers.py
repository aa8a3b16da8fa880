"""Checks of the project's containers: what each may do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_fleet.audit.finding import (
    RUN_AGAIN,
    Check,
    Facts,
    Finding,
    failed,
    listed,
    note,
    passed,
)
from edge_fleet.chat_api_bundle import IMAGE
from edge_host.constants import MONITORING_PROJECT
from edge_host.image_ref import is_pinned

RUNNING = Check("The project's containers run")
NETWORK = Check("Containers do not share the host's network", "5.10")
MONITORED = Check("The monitoring shares the host's network", "5.10")
JOBS = Check("Each job has a user of its own")
MONITORING = ("prometheus", "alertmanager", "grafana")
"""Services that ask the hosts of the fleet, from the host's own addresses."""
_SENSITIVE = ("/", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sys", "/usr")
_JOBS = {
    "engine": "the engine",
    "api": "the chat API",
    "reads": "the registry",
    "writes": "the registry",
    **dict.fromkeys(MONITORING, "the monitoring"),
}
Container = Mapping[str, Any]


@dataclass(frozen=True)
class ContainerCheck:
    """A check of every container. `problem` is empty where it holds."""

    check: Check
    problem: Callable[[Container], str]
    advice: str = f"{RUN_AGAIN} Do not edit the compose file on the host."


def _when(wrong: bool, text: str) -> str:
    return text if wrong else ""


def _mounts(container: Container, wrong: Callable[[Mapping[str, Any]], bool]) -> str:
    sources = [str(each["source"]) for each in container["mounts"] if wrong(each)]
    return f"mounts {', '.join(sources)}" if sources else ""


def _capabilities(container: Container) -> str:
    if "ALL" not in container["cap_drop"]:
        return "keeps Docker's default capabilities"
    return _when(bool(container["cap_add"]), f"has {', '.join(container['cap_add'])}")


def _security(container: Container) -> str:
    options = [str(each) for each in container["security_opt"]]
    found = [each for each in options if each.replace(":", "=").endswith("=unconfined")]
    return f"has {', '.join(found)}" if found else ""


def _is_sensitive(mount: Mapping[str, Any]) -> bool:
    # A tmpfs has no source.
    return bool(mount["source"]) and str(mount["source"]).rstrip("/") in {
        each.rstrip("/") for each in _SENSITIVE
    }


def _new_privileges(container: Container) -> str:
    options = {str(each).replace(":", "=") for each in container["security_opt"]}
    has = options & {"no-new-privileges", "no-new-privileges=true"}
    return _when(not has, "can get new privileges")


def _network(container: Container) -> str:
    wrong = container["network_mode"] == "host" and not _is_monitoring(container)
    return _when(wrong, "shares the host's network")


def _is_monitoring(container: Container) -> bool:
    return str(container["name"]) in {f"{MONITORING_PROJECT}-{each}" for each in MONITORING}


def _health(container: Container) -> str:
    wrong = _part(container) in ("engine", "api") and not container["healthcheck"]
    return _when(wrong, "has no health check")


def _log(container: Container) -> str:
    wrong = container["log_driver"] == "json-file" and not container["log_max_size"]
    return _when(wrong, "writes a log without a limit")


def _image(container: Container) -> str:
    image = str(container["image"])
    wrong = not is_pinned(image) and not image.startswith(f"{IMAGE}:")
    return _when(wrong, f"runs {image}, which has no digest")


CHECKS = (
    ContainerCheck(
        Check("Containers run as users without privileges", "4.1"),
        lambda each: _when(_user(each) in ("", "0", "root"), "runs as root"),
    ),
    ContainerCheck(
        Check("Images are named by digest, or built on the host"), _image,
        "Set llm_image to an image with a digest, or run `make lock IMAGES=all`; then site.yml.",
    ),
    ContainerCheck(Check("Containers have no unconfined profile", "5.2, 5.22"), _security),
    ContainerCheck(Check("Containers have no capabilities", "5.4"), _capabilities),
    ContainerCheck(
        Check("No container is privileged", "5.5"),
        lambda each: _when(each["privileged"], "is privileged"),
    ),
    ContainerCheck(
        Check("No folder of the host's system is mounted", "5.6"),
        lambda each: _mounts(each, _is_sensitive),
    ),
    ContainerCheck(NETWORK, _network),
    ContainerCheck(
        Check("The memory of containers is limited", "5.11"),
        lambda each: _when(not each["memory"], "has no memory limit"),
    ),
    ContainerCheck(
        Check("Root file systems of containers are read-only", "5.13"),
        lambda each: _when(not each["read_only"], "can write to its root file system"),
    ),
    ContainerCheck(
        Check("Containers share no other namespace of the host", "5.16, 5.17, 5.21, 5.31"),
        lambda each: _when(
            bool(each["namespaces"]), f"shares the host's {', '.join(each['namespaces'])}"
        ),
    ),
    ContainerCheck(
        Check("No device of the host is passed to a container", "5.18"),
        lambda each: _when(bool(each["devices"]), f"has {', '.join(each['devices'])}"),
    ),
    ContainerCheck(
        Check("Mounts are not propagated to the host", "5.20"),
        lambda each: _mounts(each, lambda mount: mount["propagation"] in ("shared", "rshared")),
    ),
    ContainerCheck(Check("Containers get no new privileges", "5.26"), _new_privileges),
    ContainerCheck(Check("The health of engine and chat API is checked", "5.27"), _health),
    ContainerCheck(
        Check("The number of processes in containers is limited", "5.29"),
        lambda each: _when(not each["pids_limit"], "has no limit of processes"),
    ),
    ContainerCheck(
        Check("docker.sock is in no container", "5.32"),
        lambda each: _mounts(each, lambda mount: str(mount["source"]).endswith("docker.sock")),
    ),
    ContainerCheck(Check("Logs of the project's containers are bounded"), _log),
)  # fmt: skip


_NO_CORE = "|/bin/false"
"""A core_pattern by which the kernel keeps no core dump of any process."""
CORE = ContainerCheck(
    Check("A crash of a container leaves no core dump"),
    lambda each: _when(each["core_limit"] != 0, "may leave a core dump, with prompts and keys"),
    f"{RUN_AGAIN} Until then, set `kernel.core_pattern={_NO_CORE}` by sysctl.",
)


def check_containers(facts: Facts) -> list[Finding]:
    """Checks of the project's containers that run."""
    running = [each for each in facts["containers"] if each["running"]]
    if not running:
        # Each check would be passed.
        advice = "Look at `docker compose ps --all` in /opt/edge-llm, and run site.yml."
        return [failed(RUNNING, "No container of the project runs.", advice)]
    core = _judge(CORE, [] if facts["core_pattern"] == _NO_CORE else running)
    return [
        passed(RUNNING),
        *(_judge(each, running) for each in CHECKS),
        core,
        _jobs(running),
        *_monitoring(running),
    ]


def _judge(check: ContainerCheck, running: list[Container]) -> Finding:
    found = [f"{each['name']} {text}" for each in running if (text := check.problem(each))]
    return failed(check.check, listed(found), check.advice) if found else passed(check.check)


def _monitoring(running: list[Container]) -> list[Finding]:
    """A note about the monitoring, which 5.10 leaves out, where it runs."""
    found = [
        f"{each['name']} shares the host's network"
        for each in running
        if each["network_mode"] == "host" and _is_monitoring(each)
    ]
    if not found:
        return []
    return [
        note(
            MONITORED, f"{listed(found)} Docker publishes no port for it.",
            "Nothing, where the fleet is to be monitored from this host (docs/monitoring.md).",
        )
    ]  # fmt: skip


def _user(container: Container) -> str:
    return str(container["user"]).partition(":")[0]


def _part(container: Container) -> str:
    """The part that a service stands for: engine-a is the engine."""
    return str(container["service"]).partition("-")[0]


def _jobs(running: list[Container]) -> Finding:
    """Whether jobs that must not see each other's files have different users."""
    jobs: dict[str, set[str]] = {}
    for each in running:
        if job := _JOBS.get(_part(each)):
            jobs.setdefault(_user(each), set()).add(job)
    shared = [
        f"the user {user} is that of {' and '.join(sorted(names))}"
        for user, names in sorted(jobs.items())
        if len(names) > 1
    ]
    if not shared:
        return passed(JOBS)
    return failed(
        JOBS, f"{listed(shared)} Each of these can read the other's files and keys.",
        f"{RUN_AGAIN} Until then, use keys that are for this host alone.",
    )  # fmt: skip
