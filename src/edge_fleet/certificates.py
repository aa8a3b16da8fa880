"""Certificates and private keys as PEM texts: parsed and described."""

from __future__ import annotations

import contextlib
import re
import ssl
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from edge_fleet.host_names import subject_names

# Of Debian and Ubuntu, of Fedora, of Alpine and macOS.
_SYSTEM_AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<kind>[A-Z ]*PRIVATE KEY)-----.*?-----END (?P=kind)-----\n?", re.DOTALL
)


class CertificateError(ValueError):
    """A text is not what it should be. The message is the reason, without the text."""


@dataclass(frozen=True)
class Certificate:
    """What a certificate says.

    `names` are its subject alternative names, as `subject_name` has them. `public_key` is a hash.
    """

    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]
    public_key: str
    parsed: x509.Certificate

    def issued_by(self, authority: Certificate) -> bool:
        """Whether `authority` has signed the certificate."""
        try:
            self.parsed.verify_directly_issued_by(authority.parsed)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain and its private key: `chain` and `key` are PEM texts."""

    certificate: Certificate
    chain: str
    key: str


def parse_certificate(text: str) -> Certificate:
    """The first certificate of a PEM text. Raises CertificateError."""
    return _describe(_parse_chain(text)[0])


def parse_pair(certificate: str, key: str) -> Pair:
    """A certificate with its chain, and its key; both may be in one text.

    Raises CertificateError, where either cannot be read or they do not belong together.
    """
    chain = _parse_chain(certificate)
    private = parse_key(key)
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    leaf = _describe(chain[0])
    if sha256(public).hexdigest() != leaf.public_key:
        raise CertificateError("the private key is not that of the first certificate")
    return Pair(
        certificate=leaf,
        chain="".join(each.public_bytes(Encoding.PEM).decode() for each in chain),
        key=private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    )


def parse_key(text: str) -> PrivateKeyTypes:
    """The private key of a PEM text. Raises CertificateError."""
    found = _PRIVATE_KEY.search(text)
    if found is None:
        raise CertificateError("it has no private key in PEM format")
    try:
        return load_pem_private_key(found[0].encode(), None)
    except TypeError:
        raise CertificateError("it has a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        # The error's own text could hold a part of the key.
        raise CertificateError("its private key cannot be read") from None


def system_authorities() -> str:
    """The certificate authorities that this machine trusts, a PEM text; empty where none is found.

    SSL_CERT_FILE does not count: in a shell after `make env` it is a file of this project.
    """
    for path in (ssl.get_default_verify_paths().openssl_cafile, *_SYSTEM_AUTHORITIES):
        with contextlib.suppress(OSError):
            return Path(path).read_text(encoding="utf-8")
    return ""


def _parse_chain(text: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise CertificateError("it has no certificate in PEM format") from None


def _describe(parsed: x509.Certificate) -> Certificate:
    public = parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Certificate(
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        names=_alternative_names(parsed),
        public_key=sha256(public).hexdigest(),
        parsed=parsed,
    )


def _alternative_names(parsed: x509.Certificate) -> tuple[str, ...]:
    try:
        found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    hosts = found.get_values_for_type(x509.DNSName)
    addresses = map(str, found.get_values_for_type(x509.IPAddress))
    return subject_names([*hosts, *addresses])
