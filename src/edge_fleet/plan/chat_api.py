"""The chat API's part of the plan: the environment and the limits of its container, and the limits
of the container of its network namespace.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from edge_fleet.chat_api_settings import Limits
from edge_fleet.settings import Settings
from edge_fleet.text import Problem
from edge_host.constants import KIB, MIB, SOCKETS_MEMORY

VISION = {"max_body_bytes": 20 * MIB, "max_queued_body_bytes": 128 * MIB}
"""Defaults for a model that sees: a photograph has megabytes, and several requests wait."""
PROCESS_MEMORY = 96 * MIB
"""Of the chat API without requests: 65 MiB were measured (docs/chat-api.md)."""
CONNECTION_MEMORY = 128 * KIB
"""Of one connection: headers, what was read ahead, what a slow client has not taken, TLS."""
NETWORK_MEMORY = 16 * MIB
"""Of the container that owns the network namespace: less than 1 MiB, and Docker's part of its start
a few more."""
PIDS = 128
"""Threads and processes of the chat API: one process with up to 40 threads for files and names, and
those of health checks."""
NETWORK_PIDS = 32
"""Of the container that owns the network namespace: one process, and Docker's threads while it
starts."""
_STEP = 16 * MIB
_MUST_FIT = (
    ("max_request_line_bytes", "max_header_bytes"),
    ("max_connections_per_address", "max_connections"),
    ("max_body_bytes", "max_queued_body_bytes"),
)
"""Limits of which the first may not exceed the second, as the chat API has it, too."""


@dataclass(frozen=True)
class ChatApi:
    """How the chat API and the container of its network namespace run.

    Sizes are bytes; threads count as processes.
    """

    environment: Mapping[str, str]
    memory_limit: int
    pids_limit: int = PIDS
    network_memory: int = NETWORK_MEMORY
    network_pids_limit: int = NETWORK_PIDS

    @property
    def memory(self) -> int:
        """What these and the socket holder may take of the host's memory."""
        return self.memory_limit + SOCKETS_MEMORY + self.network_memory


def plan_chat_api(settings: Settings, vision: bool = False) -> tuple[ChatApi, list[Problem]]:
    """The chat API's part, and settings of it that contradict each other.

    `vision`: whether the served model takes images.
    """
    limits = _limits(settings.llm_limits, vision)
    return ChatApi(
        environment=MappingProxyType(_environment(settings, limits)),
        memory_limit=_memory(limits),
    ), _key_problems(settings) + _problems(limits, settings.llm_limits.model_fields_set)


def _limits(given: Limits, vision: bool) -> Limits:
    """The limits with the defaults of the served model."""
    if not vision:
        return given
    defaults = {name: each for name, each in VISION.items() if name not in given.model_fields_set}
    return given.model_copy(update=defaults)


def _environment(settings: Settings, limits: Limits) -> dict[str, str]:
    """Environment variables of the chat API: those that differ from its own defaults."""
    flags = {
        "CHAT_API_DOCS": settings.llm_api_docs,
        "CHAT_API_STRICT": settings.llm_strict,
    }
    lists = {
        "CHAT_API_ALLOWED_NETWORKS": settings.llm_allowed_networks,
        "CHAT_API_CORS_ORIGINS": settings.llm_cors_origins,
        "CHAT_API_TRUSTED_PROXIES": settings.llm_trusted_proxies,
    }
    found = {name: "1" for name, is_set in flags.items() if is_set}
    found |= {name: ",".join(each) for name, each in lists.items() if each}
    if settings.llm_image_tokens is not None:
        found["CHAT_API_IMAGE_TOKENS"] = str(settings.llm_image_tokens)
    for name, field in Limits.model_fields.items():
        value = getattr(limits, name)
        if value != field.default:
            found[f"CHAT_API_{name.upper()}"] = str(value)
    return found


def _memory(limits: Limits) -> int:
    """What the chat API may take: a request that is beyond is refused by its limits before."""
    # One body is in memory twice while it is checked, and once more on its way to the engine.
    bodies = limits.max_queued_body_bytes + 2 * limits.max_body_bytes
    total = PROCESS_MEMORY + limits.max_connections * CONNECTION_MEMORY + bodies
    return -(-total // _STEP) * _STEP


def address_problems(settings: Settings, url: str | None) -> list[Problem]:
    """Why clients at `url` do not reach the address at which the chat API listens."""
    listened, host = settings.llm_listen_address, urlsplit(url or "").hostname
    if listened is None or not host or settings.board_url:
        return []
    if ipaddress.ip_address(listened).is_loopback:
        return [
            f"llm_listen_address does not fit: only the host itself reaches {listened}. Use another"
            " address of the host, or set board_url to the address of the server in front."
        ]
    try:
        reached = ipaddress.ip_address(host)
    except ValueError:
        return []  # a name, which may lead there
    if str(reached) == listened:
        return []
    return [
        f"llm_listen_address does not fit: the chat API would listen at {listened} alone, and"
        f" clients reach the host at {reached} (board_address). Use one of them for both."
    ]


def _key_problems(settings: Settings) -> list[Problem]:
    """Why a key cannot have both what `llm_api_keys` says and what `llm_api_key` allows."""
    return [
        f"llm_api_keys does not fit: {each.name} has the key of llm_api_key, which has no expiry,"
        " rate or share. Use another key for one of them."
        for each in settings.llm_api_keys
        if each.key == settings.llm_api_key
        and (each.expires or each.requests_per_minute or each.share)
    ]


def _problems(limits: Limits, given: set[str]) -> list[Problem]:
    """Why limits contradict each other; one message for all of them."""
    found = []
    for smaller, larger in _MUST_FIT:
        if getattr(limits, smaller) > getattr(limits, larger):
            low, high = (_shown(limits, name, given) for name in (smaller, larger))
            found.append(f"{low}, more than {high}")
    if not found:
        return []
    return [f"llm_limits does not fit: {'; '.join(found)}. Lower the first or raise the second."]


def _shown(limits: Limits, name: str, given: set[str]) -> str:
    default = "" if name in given else " (the default)"
    return f"{name} {getattr(limits, name)}{default}"


DEFAULT = plan_chat_api(Settings())[0]
"""The chat API's part with all defaults."""
