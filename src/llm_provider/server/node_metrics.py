"""The metrics of the host's node exporter, passed on to whoever has a key.

The exporter listens at a Unix socket alone, so that no port of the host has metrics without a key.
"""

from __future__ import annotations

from pathlib import Path

import aiohttp
from fastapi.responses import Response

from llm_provider.server.api_errors import APIError

MOST_BYTES = 4 * 1024 * 1024
"""A board has some 100 KiB."""
SECONDS = 8.0
"""As for the engine's: less than the 10 seconds that Prometheus waits."""


class NodeMetrics:
    """The handler. `socket` is the node exporter's, None where the chat API knows of none."""

    def __init__(self, socket: Path | None) -> None:
        self._socket = socket

    async def metrics(self) -> Response:
        """The node exporter's metrics, as it writes them. Raises APIError."""
        # Without monitoring, hosts have no such file.
        if self._socket is None or not self._socket.exists():
            raise APIError(
                501,
                "The node exporter is missing on this host. Set up the monitoring of the fleet.",
                code="no_node_exporter",
            )
        try:
            return await self._ask(self._socket)
        except TimeoutError:
            raise APIError(
                504,
                f"The node exporter does not answer within {SECONDS:g} s. See the log of"
                " edge-llm-node.service on the host.",
                code="node_exporter_timeout",
            ) from None
        except (aiohttp.ClientError, OSError, ValueError):
            # The error's text could name files of the host.
            raise APIError(
                502,
                "The node exporter cannot be read. See the log of edge-llm-node.service on the"
                " host.",
                code="node_exporter_unreachable",
            ) from None

    async def _ask(self, socket: Path) -> Response:
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        connector = aiohttp.UnixConnector(str(socket))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get("http://node/metrics", allow_redirects=False) as answer,
        ):
            answer.raise_for_status()
            content = bytearray()
            async for part in answer.content.iter_any():
                content += part
                if len(content) > MOST_BYTES:
                    raise ValueError("too large")
            headers = {"Content-Type": answer.headers.get("Content-Type", "text/plain")}
            return Response(bytes(content), headers=headers)
