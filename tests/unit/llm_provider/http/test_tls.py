"""TLS with a private CA, with each transport."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llm_provider.http.client import HTTPClient
from llm_provider.http.errors import ConnectError, ConnectionLost, InvalidSetting
from llm_provider.http.settings import Timeouts

from .conftest import MakeClient
from .server import BODY, CHUNKED, Server, chunk, sends, stays

TODAY = datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class CA:
    """A certificate authority that signs a server's certificate."""

    file: Path
    server: ssl.SSLContext


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(TODAY - datetime.timedelta(days=9))
        .not_valid_after(TODAY + datetime.timedelta(days=days))
    )


def make_ca(folder: Path, name: str, address: str = "127.0.0.1", days: int = 1) -> CA:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = (
        _builder(name, name, ca_key, 1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    certificate = (
        _builder("server", name, key, days)
        .add_extension(names, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    files = {
        "ca": ca.public_bytes(serialization.Encoding.PEM),
        "certificate": certificate.public_bytes(serialization.Encoding.PEM),
        "key": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    }
    for kind, data in files.items():
        (folder / f"{name}.{kind}").write_bytes(data)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / f"{name}.certificate", folder / f"{name}.key")
    return CA(folder / f"{name}.ca", context)


@pytest.fixture
def ca(tmp_path: Path) -> CA:
    return make_ca(tmp_path, "ours")


async def test_a_private_ca(ca: CA, make: MakeClient) -> None:
    context = ssl.create_default_context(cafile=ca.file)
    async with Server().serving(ca.server) as server:
        for verify in (ca.file, str(ca.file), context, False):
            async with await make(server.url, verify=verify).open(
                "POST", "/v1/x", b"{}"
            ) as exchange:
                assert (exchange.status, await exchange.read(99)) == (200, BODY)


async def test_verify_of_the_client_itself(ca: CA) -> None:
    async with (
        Server().serving(ca.server) as server,
        HTTPClient(server.url, verify=ca.file) as client,
        await client.open("GET", "/v1/x") as exchange,
    ):
        assert await exchange.read(99) == BODY


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("another", "unable to get local issuer certificate"),
        ("the system's", "unable to get local issuer certificate"),
        ("another address", "IP address mismatch"),
        ("expired", "certificate has expired"),
    ],
)
async def test_a_certificate_that_is_refused(
    ca: CA, make: MakeClient, tmp_path: Path, wrong: str, text: str
) -> None:
    verify: bool | Path = ca.file
    match wrong:
        case "another":
            verify = make_ca(tmp_path, "another").file
        case "the system's":
            verify = True
        case "another address":
            ca = make_ca(tmp_path, "elsewhere", "127.0.0.9")
            verify = ca.file
        case "expired":
            ca = make_ca(tmp_path, "expired", days=-1)
            verify = ca.file
    async with Server().serving(ca.server) as server:
        with pytest.raises(ConnectError) as caught:
            await make(server.url, verify=verify).open("POST", "/v1/x", b"{}")
        assert str(caught.value).startswith("its TLS certificate was refused: ")
        assert text in str(caught.value)
        assert not caught.value.refused
        assert server.requests == []


async def test_a_server_without_tls(server: Server, make: MakeClient) -> None:
    with pytest.raises(ConnectError):
        await make(server.url.replace("http:", "https:"), timeouts=Timeouts(2, 5, 5)).open(
            "GET", "/"
        )
    assert server.requests == []


async def test_a_silent_handshake(make: MakeClient) -> None:
    """The limit for connecting includes TLS."""

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    client = make(f"https://127.0.0.1:{port}", timeouts=Timeouts(0.4, 20, 20))
    async with asyncio.timeout(4):
        with pytest.raises(ConnectError, match="no answer to the attempt to connect"):
            await client.open("GET", "/")
    listener.close()


async def test_close_ends_the_stream_at_once(ca: CA, make: MakeClient) -> None:
    async with Server().serving(ca.server) as server:
        server.handler = stays(CHUNKED + chunk(b"Hel"))
        exchange = await make(server.url, verify=ca.file).open("POST", "/v1/x", b"{}")
        assert await exchange.next() == b"Hel"
        await exchange.close()
        await asyncio.wait_for(server.connections[0].gone.wait(), 1)


async def test_closed_in_the_body(ca: CA, make: MakeClient) -> None:
    async with Server().serving(ca.server) as server:
        server.handler = sends(CHUNKED + chunk(b"Hel"))
        exchange = await make(server.url, verify=ca.file).open("POST", "/v1/x", b"{}")
        with pytest.raises(ConnectionLost, match="the connection was closed"):
            await exchange.read(99)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_cannot_be_used(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidSetting, match=f"The CA file '{file}' cannot be used"):
        HTTPClient("https://127.0.0.1", verify=file)
