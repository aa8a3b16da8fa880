"""TLS between the hosts of one distribution: both sides show a certificate made for it.

The authority exists for this distribution only, and its certificates name places in the plan
(`host-1`), not machines. So a certificate says exactly which planned host is at the other end.
"""

from __future__ import annotations

import os
import ssl
from typing import Any, Mapping, NamedTuple, Set


class Credentials(NamedTuple):
    """PEM texts: the certificate authority, and this host's certificate and private key."""

    authority: str
    certificate: str
    key: str


def parse_credentials(data: Mapping[str, Any]) -> Credentials:
    """Parse credentials from JSON."""
    return Credentials(*(str(data.get(name) or "") for name in Credentials._fields))


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """Return the context of a server that accepts certificates of the authority only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _load(context, credentials)


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """Return the context of a client, which verifies the server's name."""
    return _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), credentials)


def _load(context: ssl.SSLContext, credentials: Credentials) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=credentials.authority)
    # OpenSSL reads a private key from a file only: this one is in memory and has no name.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write((credentials.certificate + credentials.key).encode())
        stream.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    return context


def peer_names(connection: ssl.SSLSocket) -> Set[str]:
    """Return the names in the certificate of the other side."""
    certificate: Mapping[str, Any] = connection.getpeercert() or {}
    return {str(value) for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
