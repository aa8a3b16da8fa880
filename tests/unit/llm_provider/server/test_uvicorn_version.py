"""The parts of uvicorn that are used beyond what it documents: two files know them."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import ssl
from pathlib import Path

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

import llm_provider
from llm_provider.server.connection_limits import UVICORN

SOURCE = Path(llm_provider.__file__).parent


def test_uvicorn_is_the_one_that_is_known() -> None:
    """After an update: read these two files beside the new version, then change UVICORN."""
    assert importlib.metadata.version("uvicorn") == UVICORN


def test_two_files_use_uvicorn() -> None:
    users = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if re.search(r"^\s*(from|import) uvicorn\b", path.read_text(), re.MULTILINE)
    }
    assert users == {"server/connection_limits.py", "server/uvicorn_server.py"}


def test_parts_of_the_protocol() -> None:
    source = inspect.getsource(HttpToolsProtocol)
    for name in (
        "timeout_keep_alive", "ws_protocol_class", "transport", "client", "cycle", "pipeline",
        "headers", "url", "loop", "parser",
    ):  # fmt: skip
        assert f"self.{name}" in source, name
    for name in (
        "connection_made", "connection_lost", "data_received", "on_message_begin", "on_url",
        "on_header", "on_headers_complete", "on_body", "on_message_complete",
        "on_response_complete", "send_400_response", "_unset_keepalive_if_required",
    ):  # fmt: skip
        assert callable(getattr(HttpToolsProtocol, name)), name
    # `LimitedProtocol._parse` stands for it.
    received = inspect.getsource(HttpToolsProtocol.data_received)
    assert "self._unset_keepalive_if_required()\n" in received
    assert "self.parser.feed_data(data)\n        except httptools.HttpParserError" in received
    assert "self.send_400_response(msg)" in received
    assert issubclass(httptools.HttpParserCallbackError, httptools.HttpParserError)
    cycle = inspect.getsource(RequestResponseCycle)
    assert "self.response_complete" in cycle
    assert "if not self.keep_alive:\n                    self.transport.close()" in cycle


def test_parts_of_the_server() -> None:
    startup = inspect.getsource(uvicorn.Server.startup)
    assert "for sock in sockets:" in startup
    assert "self.servers.append(server)" in startup
    assert "config=config,\n" in startup
    assert "server_state=self.server_state,\n" in startup
    assert "app_state=self.lifespan.state,\n" in startup
    shutdown = inspect.getsource(uvicorn.Server.shutdown)
    assert "connection.shutdown()" in shutdown
    assert "timeout=self.config.timeout_graceful_shutdown" in shutdown
    assert list(inspect.signature(uvicorn.Server.startup).parameters) == ["self", "sockets"]
    assert list(inspect.signature(uvicorn.Server.shutdown).parameters) == ["self", "sockets"]
    assert list(inspect.signature(HttpToolsProtocol).parameters)[:3] == [
        "config", "server_state", "app_state",
    ]  # fmt: skip
    assert ServerState().tasks == set()


def test_openssl_knows_the_flag_that_ssl_has_no_name_for() -> None:
    """`tls` sets it: the expiry of a certificate is told whether it is over or not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VerifyFlags(0x200000)
    assert context.verify_flags & 0x200000
