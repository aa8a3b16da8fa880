"""Exit with 0 if the chat API on this host is alive, else with 1.

    python -m llm_provider.standalone.healthcheck

It asks at CHAT_API_SOCKET where that is set: the port may lead to another chat API beside it. The
port has HTTPS where CHAT_API_TLS_CERTIFICATE is set; the socket always has HTTP.
A container's health probe, run every few seconds: the standard library's smallest part, no more.
"""

from __future__ import annotations

import os
import socket
import sys

from llm_provider import API_PORT

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which `ssl` has no name."""


def main(port: int = API_PORT, seconds: float = 3.0) -> int:
    """Ask GET /health; print a sentence about what was seen where it is not 200."""
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    path = os.environ.get("CHAT_API_SOCKET")
    where = path or f"port {port}"
    try:
        with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as connection:
            connection.settimeout(seconds)
            connection.connect(path or ("127.0.0.1", port))
            certificate = os.environ.get("CHAT_API_TLS_CERTIFICATE")
            stream = _with_tls(connection, certificate) if certificate and not path else connection
            stream.sendall(request)
            with stream.makefile("rb") as answer:
                status = answer.readline(100).decode("latin-1").strip()
    except OSError as error:
        print(f"The chat API at {where} does not answer: {error}.")
        return 1
    if status.split(" ")[1:2] != ["200"]:
        print(f"The chat API at {where} answered {status!r}; 200 is needed.")
        return 1
    return 0


def _with_tls(connection: socket.socket, certificate: str) -> socket.socket:
    """Start TLS with a server that must have `certificate`; whether it has expired does not count.

    Raises OSError.
    """
    import ssl  # loading it takes longer than a probe without it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The certificate is known; it has the names of the host, not of this address.
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    context.load_verify_locations(certificate)
    return context.wrap_socket(connection)


if __name__ == "__main__":
    sys.exit(main())
