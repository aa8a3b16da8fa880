"""What is wrong with a host, and what is worth knowing about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from edge_fleet.certificates import CertificateError, parse_certificate
from edge_fleet.drift import (
    SERVICES,
    container_differences,
    installation_drift,
    port_differences,
)
from edge_fleet.verification import unverified_gpu
from edge_host.constants import NETWORK
from edge_host.release_record import listen_address
from edge_host.sizes import format_mib

# As the alerts of the role monitoring have them: a status and an alert agree.
HOT_CELSIUS = 80
DISK_SHARE = 0.1
CERTIFICATE_DAYS = 14
_PUT_BACK = "Run site.yml, which puts it back."
_RUN = "Run site.yml."
State = Mapping[str, Any]


def problems_of(state: State, now: datetime) -> list[str]:
    """What is wrong with a host that was read, a sentence or two each; empty where nothing is.

    `state` is that of the module host_info, with its status.
    """
    release = state["deployment"]["release"]
    if not state["docker"]["running"]:
        error = state["docker"]["error"] or "its engine does not answer"
        return [
            f"Docker does not run: {error}. See journalctl -u docker on the host.",
            *_board(state),
        ]
    if release is None:
        return [f"The host has no release. {_RUN}", *_board(state)]
    return [
        *_services(state, release),
        *_drift(state),
        *_gpu(state, release),
        *_certificate(state, release, now),
        *_board(state),
    ]


def notes_of(state: State) -> list[str]:
    """What is worth knowing about a host, and no problem now."""
    board, lock = state["board"], state["deployment"]["lock"]
    notes = []
    if lock is not None:
        notes.append(f"{lock['by']} has been changing the host since {lock['since']}")
    if differing := installation_drift(dict(state)):
        notes.append(f"not of this version of the project: {', '.join(differing)}")
    before = [each for each in board["throttled"] or [] if each.endswith(" since the start")]
    if before:
        notes.append(f"the board reports: {', '.join(before)}")
    if board["time_synchronised"] is False:
        notes.append("the clock is not synchronised: certificates and logs have wrong times")
    return notes


def _services(state: State, release: Mapping[str, Any]) -> list[str]:
    deployment, plan = state["deployment"], release["plan"]
    found = port_differences(dict(state), listen_address(release))
    if deployment["change"] is not None and deployment["lock"] is None:
        found.append("a change was interrupted")
    # Releases of earlier versions have no network namespace of their own.
    services = [each for each in SERVICES if each != "network" or "network" in plan]
    found += container_differences(
        deployment["containers"], {"engine": plan["engine"]["image"]}, services
    )
    return [f"{_sentence(each)}. {_advice(each)}" for each in found]


def _sentence(phrase: str) -> str:
    # A name, such as systemd, keeps its form.
    is_name = phrase.startswith((NETWORK, "systemd"))
    return phrase if is_name else f"{phrase[:1].upper()}{phrase[1:]}"


def _advice(difference: str) -> str:
    if "the container of" in difference:
        return (
            f"See docker compose logs in the deployment's folder; then {_RUN[0].lower()}{_RUN[1:]}"
        )
    return _RUN


def _drift(state: State) -> list[str]:
    # While somebody changes the host, files are of the release before or of the next one.
    if state["deployment"]["lock"] is not None:
        return []
    return [f"{each} is not as it was deployed. {_PUT_BACK}" for each in state["status"]["drift"]]


def _gpu(state: State, release: Mapping[str, Any]) -> list[str]:
    plan, engine = release["plan"], state["deployment"]["containers"].get("engine")
    # Ollama says only to clients where a model is, and an engine that does not run says nothing.
    if plan["provider"] == "ollama" or not engine or engine["status"] != "running":
        return []
    problem = unverified_gpu(plan, state["deployment"]["engine_log"], {})
    return [f"GPU: {problem}."] if problem else []


def certificate_end(state: State) -> datetime | None:
    """When the chat API's certificate expires; None where the host serves without TLS, or has none
    that can be read.
    """
    release = state["deployment"]["release"]
    if release is None or not _serves_tls(release):
        return None
    try:
        return parse_certificate(state["status"]["certificate"] or "").not_after
    except CertificateError:
        return None


def _serves_tls(release: Mapping[str, Any]) -> bool:
    # Releases of earlier versions do not say.
    return bool(release["plan"].get("api", {}).get("tls"))


def _certificate(state: State, release: Mapping[str, Any], now: datetime) -> list[str]:
    if not _serves_tls(release):
        return []
    end = certificate_end(state)
    if end is None:
        return [f"The certificate of the chat API is missing or cannot be read. {_PUT_BACK}"]
    if end - now >= timedelta(days=CERTIFICATE_DAYS):
        return []
    verb = "expired" if end <= now else "expires"
    return [
        f"The certificate of the chat API {verb} on {end:%Y-%m-%d}. Run site.yml, which renews one"
        " of the project; replace one of your own."
    ]


def _board(state: State) -> list[str]:
    sensors, disk = state["status"]["sensors"], state["board"]["disk"]
    found = []
    reasons = sorted(name for name, holds in sensors["throttling"].items() if holds)
    if reasons:
        found.append(
            f"The board is throttled: {', '.join(reasons)}. Under-voltage needs another power"
            " supply or cable, temperature better cooling."
        )
    degrees = sensors["temperature"]
    if degrees is not None and degrees >= HOT_CELSIUS:
        found.append(f"The board has {degrees:.0f} °C. Improve its cooling.")
    if disk["free"] < DISK_SHARE * disk["total"]:
        found.append(
            f"The disk is almost full: {format_mib(disk['free'])} of {format_mib(disk['total'])}"
            " are free. llm_models_keep removes old weights."
        )
    return found
