"""The chat API: one OpenAI-compatible address before whichever engine this host runs.

`python -m llm_provider.server` serves it. Settings come from the environment: see `settings`,
`llm_provider.providers.settings` for the engine's, and `engine_file` for changing the engine while
the chat API runs.
"""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
from collections.abc import Callable

from llm_provider import API_PORT, ENGINE_PORT
from llm_provider.errors import ConfigurationError
from llm_provider.server import logs
from llm_provider.server.application import create_app
from llm_provider.server.connection_guard import ConnectionGuard
from llm_provider.server.connection_metrics import ConnectionCollector
from llm_provider.server.gateway import gateways
from llm_provider.server.listeners import Listeners, from_socket_holder, own_port
from llm_provider.server.settings import ServerSettings
from llm_provider.server.tls import Certificate
from llm_provider.server.uvicorn_server import Server, server_config

_log = logging.getLogger("llm_provider.api")


def main(argv: list[str] | None = None) -> int:
    """Serve the chat API until a signal stops it (SIGTERM, SIGINT); SIGUSR1 has it retire.

    Settings come from the environment: see `settings`. Exit status 1: it could not start, or the
    socket holder is gone; 2: a wrong setting.
    """
    parser = argparse.ArgumentParser(prog="python -m llm_provider.server", description=__doc__)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - it serves the network
    parser.add_argument("--port", type=int, default=API_PORT)
    parser.add_argument(
        "--engine-port",
        type=int,
        default=ENGINE_PORT,
        help="of the socket holder, for the engine",
    )
    arguments = parser.parse_args(argv)
    logs.configure()
    # Held back until there is something that can retire: it would end the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        app = create_app()
        settings: ServerSettings = app.state.settings
        guard = connection_guard(settings)
        certificate = Certificate(*settings.tls) if settings.tls is not None else None
        app.state.metrics.register(ConnectionCollector(guard, certificate))
        config = server_config(
            app,
            guard,
            loop="uvloop",
            timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
        )
        server = Server(config, app.state.queue, guard, certificate, app.state.engine_port)

        def stop(*_: object) -> None:
            server.should_exit = True

        for wanted in (signal.SIGTERM, signal.SIGINT):
            # Once it has stopped, uvicorn raises the signal again, to whoever had it before: had
            # that been the system, a clean stop would end as one by a signal.
            signal.signal(wanted, stop)
        try:
            listeners = _listeners(settings, arguments, lambda: server.should_exit)
        except OSError as error:
            _log.error("port %d of %s: %s", arguments.port, arguments.host, error)
            return 1
        if listeners is None:
            return 0  # a signal came while it waited for the socket holder
        if settings.own_socket is not None:
            listeners.add_own(settings.own_socket)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    server.serve_on(listeners, lambda given_up: _listeners(settings, arguments, given_up))
    return 0 if server.started and not server.lost_holder else 1


def connection_guard(settings: ServerSettings) -> ConnectionGuard:
    """Return the guard of a process with these settings."""
    # Where a container holds the ports, Docker's gateway; elsewhere it may be any router.
    behind = gateways() if settings.socket_holder is not None else frozenset()
    return ConnectionGuard(settings.limits, behind)


def _listeners(
    settings: ServerSettings, arguments: argparse.Namespace, given_up: Callable[[], bool]
) -> Listeners | None:
    if settings.socket_holder is None:
        return own_port(arguments.host, arguments.port)
    return from_socket_holder(
        settings.socket_holder, arguments.port, arguments.engine_port, given_up
    )
