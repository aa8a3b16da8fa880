"""Uvicorn as the chat API runs it: stopping, and retiring beside another process.

With `connection_limits`, which names the version, the only file that uses internals of uvicorn:
here of its server, `startup`, `shutdown`, `servers`, `lifespan`, `server_state`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from llm_provider.errors import ConfigurationError
from llm_provider.server.admission import AdmissionQueue
from llm_provider.server.application import Application
from llm_provider.server.connection_guard import Connection, ConnectionGuard, Rest
from llm_provider.server.connection_limits import LimitedProtocol, limited_protocol
from llm_provider.server.engine_port import EnginePort, port_limits
from llm_provider.server.listeners import REJOIN_SECONDS, Listeners
from llm_provider.server.tls import Certificate
from llm_provider.server.tls_listener import TLSListener

FindHolder = Callable[[Callable[[], bool]], Listeners | None]
LINGER_SECONDS = 0.25
"""How long a retiring process leaves an idle connection open: a request may be on its way."""
_LOOK_SECONDS = 0.02
_IDLE = (Rest.SILENT, Rest.IDLE)

_log = logging.getLogger("llm_provider.api")


class Server(uvicorn.Server):
    """Uvicorn, which refuses waiting requests as soon as it has to stop, and can retire.

    Retiring (SIGUSR1), it takes no more connections and ends everything that came over those there
    are; then it waits to be stopped, since a process that ended by itself would be started again.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        queue: AdmissionQueue,
        guard: ConnectionGuard,
        certificate: Certificate | None = None,
        engine_port: EnginePort | None = None,
    ) -> None:
        super().__init__(config)
        self.lost_holder = False
        self._find_holder: FindHolder | None = None
        self._rejoining: asyncio.Task[None] | None = None
        self._queue = queue
        self._guard = guard
        self._certificate = certificate
        self._following: asyncio.Task[None] | None = None
        self._tls: list[TLSListener] = []
        self._engine_port = engine_port
        self._engine_server: uvicorn.Server | None = None
        self._listeners = Listeners([])
        self._retirement: asyncio.Task[None] | None = None

    def serve_on(self, listeners: Listeners, find_holder: FindHolder | None = None) -> None:
        """Serve on these until a signal stops it.

        `find_holder` returns the listeners of the next socket holder, None once it is given up.
        """
        self._listeners = listeners
        self._find_holder = find_holder
        self.run(listeners.api)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        if self._certificate is None:
            await super().startup(self._listeners.api)
        else:
            await super().startup(self._listeners.unix)
            self._following = loop.create_task(self._certificate.follow())
            protocol = protocol_factory(self, self._guard)
            self._tls = [
                TLSListener(each, self._guard, self._certificate, protocol)
                for each in self._listeners.network
            ]
        if self._listeners.engine is not None and self._engine_port is not None:
            # systemd's sockets are the host's own; an earlier version's are a container's.
            limits = port_limits(self._guard.limits, host_only=self._listeners.kept)
            self._engine_server = await start_server(
                server_config(self._engine_port, ConnectionGuard(limits), lifespan="off"),
                self._listeners.engine,
            )
        self._watch_holder()
        loop.add_signal_handler(signal.SIGUSR1, self._retire)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._queue.stop()
        for task in (self._retirement, self._following, self._rejoining):
            if task is not None:
                task.cancel()
        for each in self._tls:
            await each.close()
        if self._engine_server is not None:
            # An answer of the engine itself is cut.
            await stop_server(self._engine_server)
        if self._engine_port is not None:
            await self._engine_port.close()
        try:
            await super().shutdown(sockets)
        finally:
            self._listeners.forget_own()

    def _lose_holder(self) -> None:
        """Look for the next socket holder where this one's sockets outlive it; else end."""
        self._leave_holder()
        if self._listeners.kept and self._find_holder is not None:
            self._rejoining = asyncio.create_task(self._rejoin(self._find_holder))
            return
        # Whoever came through its sockets went with it: there is nobody to wait for.
        self.config.timeout_graceful_shutdown = 0
        self._end_without_holder()

    def _end_without_holder(self) -> None:
        """End, and close its sockets: a new socket holder could not open its own beside them."""
        _log.error(
            "the socket holder is gone; this process ends, to get the sockets of the next one"
        )
        self.lost_holder = True
        self.should_exit = True

    async def _rejoin(self, find_holder: FindHolder) -> None:
        """Serve on, and connect to the next socket holder; end where it has other sockets."""
        _log.warning("the socket holder is gone; its sockets stay, until the next one is there")
        loop = asyncio.get_running_loop()
        end = loop.time() + REJOIN_SECONDS

        def given_up() -> bool:
            return self.should_exit or self._retirement is not None or loop.time() > end

        try:
            found = await asyncio.to_thread(find_holder, given_up)
        except ConfigurationError as error:
            _log.error("%s", error)
            found = None
        if self.should_exit or self._retirement is not None:
            if found is not None:
                found.close_shared()
        elif found is None or not self._listeners.has_sockets_of(found):
            if found is not None:
                found.close_shared()
            self._end_without_holder()
        else:
            holder, found.holder = found.holder, None
            found.close_shared()
            self._listeners.holder = holder
            self._watch_holder()

    def _watch_holder(self) -> None:
        if self._listeners.holder is not None:
            asyncio.get_running_loop().add_reader(self._listeners.holder, self._lose_holder)

    def _leave_holder(self) -> None:
        if self._listeners.holder is not None:
            asyncio.get_running_loop().remove_reader(self._listeners.holder)
            self._listeners.holder.close()
            self._listeners.holder = None

    def _retire(self) -> None:
        if self._retirement is not None or self.should_exit:
            return
        _log.info("retiring", extra={"in_flight": self._queue.running + self._queue.leaving})
        self._queue.engine.retire()
        self._leave_holder()
        for server in self.servers[: len(self.servers) - len(self._listeners.unix)]:
            server.close()
        for each in self._tls:
            each.shut()
        if self._engine_server is not None:
            _shut(self._engine_server)
        self._listeners.close_shared()
        self._retirement = asyncio.create_task(self._finish())

    async def _finish(self) -> None:
        """Wait until all that was accepted is answered; then be found no more."""
        idle: dict[Connection, float] = {}
        # Over its own socket it is only asked how far it is.
        while (clients := self._guard.over_network()) or not self._queue.empty:
            now = time.monotonic()
            idle = {each: idle.get(each, now) for each in clients if each.rest in _IDLE}
            for each, since in idle.items():
                if now - since >= LINGER_SECONDS:
                    each.evict()
            await asyncio.sleep(_LOOK_SECONDS)
        self._queue.stop()
        self._listeners.forget_own()
        for server in self.servers:
            server.close()
        _log.info("retired: all that came is answered")


def server_config(app: ASGIApp, guard: ConnectionGuard, **more: Any) -> uvicorn.Config:
    """How uvicorn serves the chat API, or the engine's port, wherever it listens."""
    return uvicorn.Config(
        app,
        # Nobody stands between: an address in a header is whatever a client makes up.
        proxy_headers=False,
        http=limited_protocol(guard),
        log_config=None,
        access_log=False,
        server_header=False,
        **more,
    )


@asynccontextmanager
async def serving(app: Application, listener: socket.socket) -> AsyncGenerator[str, None]:
    """Serve `app` at `listener` within this process; yields its URL.

    Uvicorn's parts alone: as a whole it would take over the process's signals, and its time to
    stop.
    """
    guard = ConnectionGuard(app.state.settings.limits)
    server = await start_server(server_config(app, guard), listener)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await stop_server(server)


async def start_server(config: uvicorn.Config, listener: socket.socket) -> uvicorn.Server:
    """Serve at `listener`, beside whatever this process serves."""
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    return server


def _shut(server: uvicorn.Server) -> None:
    """Accept no more; the connections there are end with the answers that they wait for."""
    for each in server.servers:
        each.close()
    for connection in [*server.server_state.connections]:
        connection.shutdown()


async def stop_server(server: uvicorn.Server) -> None:
    """Accept no more, and cut what is not answered."""
    _shut(server)
    for task in server.server_state.tasks:
        task.cancel()
    await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
    await server.lifespan.shutdown()


def protocol_factory(
    server: uvicorn.Server, guard: ConnectionGuard
) -> Callable[[], LimitedProtocol]:
    """Return what makes the protocol of a connection that uvicorn did not accept."""
    kind = limited_protocol(guard)

    def make() -> LimitedProtocol:
        return kind(
            config=server.config,
            server_state=server.server_state,
            app_state=server.lifespan.state,
        )

    return make
