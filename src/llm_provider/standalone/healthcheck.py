"""Exit with 0 if the chat API on this host is alive, else with 1.

    python -m llm_provider.standalone.healthcheck

It asks at CHAT_API_SOCKET where that is set: the port may lead to another chat API beside it. At
the port it speaks TLS where CHAT_API_TLS_CERTIFICATE is set.
A container's health probe, run every few seconds: the standard library's smallest part, no more.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack

from llm_provider import API_PORT


def main(port: int = API_PORT, seconds: float = 3.0) -> int:
    """Ask GET /health; print a sentence about what was seen where it is not 200."""
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    path = os.environ.get("CHAT_API_SOCKET")
    where = path or f"port {port}"
    try:
        with ExitStack() as stack:
            family = socket.AF_UNIX if path else socket.AF_INET
            connection = stack.enter_context(socket.socket(family))
            connection.settimeout(seconds)
            connection.connect(path or ("127.0.0.1", port))
            if not path and os.environ.get("CHAT_API_TLS_CERTIFICATE"):
                connection = stack.enter_context(_encrypted(connection))
            connection.sendall(request)
            answer = stack.enter_context(connection.makefile("rb"))
            status = answer.readline(100).decode("latin-1").strip()
    except OSError as error:
        print(f"The chat API at {where} does not answer: {error}.")
        return 1
    if status.split(" ")[1:2] != ["200"]:
        print(f"The chat API at {where} answered {status!r}; 200 is needed.")
        return 1
    return 0


def _encrypted(connection: socket.socket) -> socket.socket:
    """Whoever answers on this host is the chat API, whatever its certificate says."""
    import ssl  # it takes longer than all the rest

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


if __name__ == "__main__":
    sys.exit(main())
