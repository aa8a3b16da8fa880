"""Names and addresses of hosts, as certificates have them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_LONGEST_DNS_NAME = 253


def subject_name(text: str) -> str | None:
    """A host's name as certificates have it: "DNS:kitchen.local" or "IP:192.0.2.11".

    None for what no certificate can name, such as an IPv6 address with a zone.
    """
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        name = text.lower().rstrip(".")
        fits = len(name) <= _LONGEST_DNS_NAME and _DNS_NAME.fullmatch(name)
        # Clients take a text of digits and dots for an address, valid or not.
        return f"DNS:{name}" if fits and not re.fullmatch(r"[\d.]+", name) else None
    # ip_address keeps a zone, which is for one machine alone.
    return None if "%" in str(address) else f"IP:{address}"


def subject_names(texts: Iterable[str]) -> tuple[str, ...]:
    """The names of texts that a certificate can name, each once, in their order."""
    return tuple(dict.fromkeys(name for name in map(subject_name, texts) if name))


def covers(names: Iterable[str], wanted: str) -> bool:
    """Whether one of a certificate's names is `wanted`; *.example.org is kitchen.example.org."""
    kind, _, host = wanted.partition(":")
    _, _, domain = host.partition(".")
    choices = {wanted} | ({f"DNS:*.{domain}"} if kind == "DNS" and "." in domain else set())
    return not choices.isdisjoint(names)
