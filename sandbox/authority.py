"""An authority of the sandbox's own, and the certificate by which its hub answers encrypted."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sandbox.instance import Instance
from sandbox.steps import Step

_DAYS = 3650


def folder(instance: Instance) -> Path:
    """Where they are: authority.pem (which clients are to trust), hub.pem and hub.key."""
    return instance.state / "certificates"


def make(step: Step, instance: Instance) -> str | None:
    """See to it that they are there."""
    made = folder(instance)
    if (made / "hub.pem").exists():
        return "already there"
    made.mkdir(parents=True, exist_ok=True)
    authority_key, hub_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _name("The sandbox's authority")
    root = (
        _builder(authority, authority, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    address = x509.IPAddress(ipaddress.ip_address(instance.hub_address))
    leaf = (
        _builder(_name("The sandbox's hub"), authority, hub_key)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (made / "authority.pem").write_bytes(root.public_bytes(pem))
    # Nobody but the sandbox's hub answers with it, and nobody but the tests trusts it.
    (made / "hub.key").write_bytes(
        hub_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (made / "hub.pem").write_bytes(leaf.public_bytes(pem))
    return None


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    begins = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=_DAYS))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
