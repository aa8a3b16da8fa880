"""Certificate authorities and certificates for tests: PEM texts of a certificate and its key."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC).replace(microsecond=0)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def load_key(text: str) -> ec.EllipticCurvePrivateKey:
    """The private key of a text."""
    key = load_pem_private_key(text.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def key_text(key: ec.EllipticCurvePrivateKey, passphrase: str = "") -> str:
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase:
        encryption = BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def authority(begin: datetime = NOW - timedelta(days=1), days: int = 3650) -> str:
    """A certificate authority."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a certificate authority")])
    made = (
        _builder(subject, subject, key.public_key(), begin, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key_text(key) + _text(made)


def issue(
    issuer: str,
    names: Iterable[str],
    begin: datetime = NOW - timedelta(days=1),
    days: int = 825,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> str:
    """A certificate of an authority for names such as DNS:pi-01 and IP:192.0.2.11."""
    own = key or new_key()
    issuer_key = load_key(issuer)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a host")])
    signer = x509.load_pem_x509_certificate(issuer.encode()).subject
    builder = _builder(subject, signer, own.public_key(), begin, days).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
    )
    builder = builder.add_extension(_usage(signs=False), critical=True)
    if listed := [_name(each) for each in names]:
        builder = builder.add_extension(x509.SubjectAlternativeName(listed), critical=False)
    return key_text(own) + _text(builder.sign(issuer_key, hashes.SHA256()))


def certificate_text(pair: str) -> str:
    """The certificate of a text that has its key, too."""
    return _text(x509.load_pem_x509_certificate(pair.encode()))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
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


def _name(text: str) -> x509.GeneralName:
    kind, _, value = text.partition(":")
    return x509.DNSName(value) if kind == "DNS" else x509.IPAddress(ipaddress.ip_address(value))


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
