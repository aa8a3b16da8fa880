"""The certificate by which Prometheus, Alertmanager and Grafana know each other.

They listen on the loopback interface, where every user of the host could ask them. The one
certificate is that of each server and of each client, and its own authority.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_fleet.certificates import CertificateError, parse_pair

LIFETIME = timedelta(days=3650)
RENEWED_BEFORE = timedelta(days=365)
"""A certificate that ends within this time is replaced."""
NAME = "localhost"
_EARLIER = timedelta(days=1)
"""Valid from before it is made, for a host whose clock is late."""


def monitoring_pair(existing: str | None, now: datetime) -> str:
    """The private key and the certificate, a PEM text: the existing ones, as long as they last."""
    if existing:
        try:
            pair = parse_pair(existing, existing)
        except CertificateError:
            pair = None
        if pair and pair.certificate.not_after - RENEWED_BEFORE > now:
            return existing
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge-llm monitoring")])
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    names = [x509.DNSName(NAME), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (private + certificate.public_bytes(Encoding.PEM)).decode()
