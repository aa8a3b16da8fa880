"""Texts of errors as clients may read them: without the addresses of this host's own network."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from llm_provider.http.blocks import cut_blocks, read_block
from llm_provider.providers.selection import PROVIDERS

HIDDEN = "[address]"

_ENGINE = re.compile(rf"\b({'|'.join(PROVIDERS)}) at (https?://\S*[^\s.,:;])")
# Where this package's own sentences name it: further on, an engine's words may quote a request.
_SUBJECT = re.compile(rf"(?:The engine is not ready: )?{_ENGINE.pattern}")
_URL = re.compile(r"https?://(?:\[[0-9A-Fa-f:.%]*\]|[^\s\"'<>\\)\]},])*[^\s\"'<>\\)\]},.;:]")
_IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:]{2,}\])(?::\d{1,5})?(?!\w|\.\d)"
)
_INNER_NAMES = ("localhost", ".local", ".internal", ".lan")


def without_addresses(text: str) -> str:
    """Return `text` with engines named without their addresses, and internal ones hidden."""
    text = _ENGINE.sub(r"\1", text)
    text = _URL.sub(lambda found: HIDDEN if _is_inner_url(found[0]) else found[0], text)
    return _IP.sub(lambda found: HIDDEN if _is_inner(_host(found[0])) else found[0], text)


def without_addresses_in_errors(events: bytes) -> bytes:
    """Return a stream's events with internal addresses hidden in those that tell of an error."""
    return b"".join(
        _public_event(event) if b'"error"' in event else event for event in cut_blocks(events)
    )


def _public_event(event: bytes) -> bytes:
    data = read_block(event)
    if not isinstance(data, dict) or not data.get("error"):
        return event
    # JSON's escapes end an address as a quotation mark does.
    return without_addresses(event.decode("utf-8", "surrogateescape")).encode(
        "utf-8", "surrogateescape"
    )


def engine_address(text: str) -> str | None:
    """Return the address of the engine that an error's text is about, for the log."""
    found = _SUBJECT.match(text)
    return found[2] if found else None


def _is_inner_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return "@" in parts.netloc or _is_inner(parts.hostname or "")
    except ValueError:  # no address at all
        return True


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1 : address.index("]")]
    return address.partition(":")[0]


def _is_inner(host: str) -> bool:
    """Whether a host's name or address means nothing outside its own network."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(_INNER_NAMES)
