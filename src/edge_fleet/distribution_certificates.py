"""Certificates by which the hosts of one distribution of weights know each other.

Each distribution has a certificate authority of its own, whose private key is forgotten at once.
Its certificates are valid for a day, and name places in the plan (`host-1`). Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(hours=24)
_EARLIER = timedelta(days=1)
"""Certificates are valid from before they are made, for hosts whose clocks are late."""


def distribution_credentials(
    distribution: Mapping[str, Any], now: datetime
) -> dict[str, dict[str, dict[str, Any]]]:
    """The credentials of each job of `weight_distribution.distribution_jobs`.

    Returns `jobs` and `control` ({host: {bundle: credentials}}), for jobs that have to do with
    other machines: authority, certificate and key (PEM), planned_at (seconds since 1970).
    """
    authorities: dict[str, _Authority] = {}
    found: dict[str, dict[str, dict[str, Any]]] = {"jobs": {}, "control": {}}
    for kind, hosts in found.items():
        for host, jobs in distribution[kind].items():
            for bundle, job in jobs.items():
                if not job["predecessors"] and not job["successors"]:
                    continue
                name = job["distribution"]
                if name not in authorities:
                    authorities[name] = _Authority(now)
                hosts.setdefault(host, {})[bundle] = authorities[name].issue(job["identity"]) | {
                    "planned_at": now.timestamp()
                }
    return found


class _Authority:
    """A certificate authority in memory."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("distribution of weights")
        self._certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(self._key, SHA256())
        )

    def issue(self, identity: str) -> dict[str, str]:
        """A certificate for both sides of a connection, with its private key."""
        key = ec.generate_private_key(ec.SECP256R1())
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            self._builder(_name(identity), key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), critical=False)
            .sign(self._key, SHA256())
        )
        return {
            "authority": self._certificate.public_bytes(Encoding.PEM).decode(),
            "certificate": certificate.public_bytes(Encoding.PEM).decode(),
            "key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        }

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _EARLIER)
            .not_valid_after(self._now + LIFETIME)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
