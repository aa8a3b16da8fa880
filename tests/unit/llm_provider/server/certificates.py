"""Certificates for 127.0.0.1, made for a test."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM, and when it ends."""

    certificate: bytes
    key: bytes
    ends: datetime
    number: int

    @classmethod
    def made(cls, days: float = 90, *, passphrase: bytes = b"", for_clients: bool = False) -> Pair:
        """One that signs itself; `days` below 0: that has ended already."""
        key = ec.generate_private_key(ec.SECP256R1())
        number = x509.random_serial_number()
        # Of two that one trusts with the same name, OpenSSL finds one alone.
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"chat API {number:x}"[:64])])
        ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
        use = ExtendedKeyUsageOID.CLIENT_AUTH if for_clients else ExtendedKeyUsageOID.SERVER_AUTH
        signed = (
            x509.CertificateBuilder(name, name, key.public_key(), number)
            .not_valid_before(ends - timedelta(days=365))
            .not_valid_after(ends)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .sign(key, hashes.SHA256())
        )
        secret = key.private_bytes(
            PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase)
            if passphrase
            else serialization.NoEncryption(),
        )
        return cls(signed.public_bytes(PEM), secret, ends, number)


@dataclass(frozen=True)
class Files:
    """Where a chat API finds its pair."""

    certificate: Path
    key: Path

    @classmethod
    def at(cls, folder: Path, pair: Pair) -> Files:
        files = cls(folder / "certificate.pem", folder / "key.pem")
        files.write(pair)
        return files

    @property
    def environ(self) -> dict[str, str]:
        return {
            "CHAT_API_TLS_CERTIFICATE": str(self.certificate),
            "CHAT_API_TLS_KEY": str(self.key),
        }

    def write(self, pair: Pair) -> None:
        """Replace both, one after the other."""
        replace(self.certificate, pair.certificate)
        replace(self.key, pair.key)


def replace(path: Path, data: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    beside.replace(path)


def trusting(*pairs: Pair) -> ssl.SSLContext:
    """What a client checks the server's certificate by."""
    context = ssl.create_default_context()
    for pair in pairs:
        context.load_verify_locations(cadata=pair.certificate.decode())
    return context
