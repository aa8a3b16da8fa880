"""Answers to requests whose bodies have not been read, so that the client can read the answer."""

from __future__ import annotations

from fastapi.responses import Response
from starlette.types import Message, Receive, Scope, Send

from llm_provider.server.body import discard_body

DISCARD_BYTES = 32 * 1024 * 1024
DISCARD_SECONDS = 15.0
SMALL_BYTES = 64 * 1024
SMALL_SECONDS = 0.1
BODY_READ = "body_read"
"""The name within the scope's state that says that a request's body has been read to its end."""


class Refusal(Response):
    """An answer, and the end of the connection where the request's body has not been read.

    A client that sends its whole body before it reads would learn nothing of a connection that is
    closed meanwhile. So the answer is sent at once, for those that read while they send; then the
    body is dropped as it arrives, DISCARD_BYTES of it and for DISCARD_SECONDS at most; and then the
    connection is closed. A client that waits for "100 Continue" is not asked for its body. A small
    body, which has arrived already or nearly, is dropped first, and the connection stays open.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _has_unread_body(scope) or await _drop_small_body(scope, receive):
            await super().__call__(scope, receive, send)
            return

        async def send_and_discard(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
                await send(message)
                return
            if message["type"] == "http.response.body" and not _waits_to_be_asked(scope):
                await send({**message, "more_body": True})
                await discard_body(receive, most=DISCARD_BYTES, seconds=DISCARD_SECONDS)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await super().__call__(scope, receive, send_and_discard)


def _has_unread_body(scope: Scope) -> bool:
    if scope.get("state", {}).get(BODY_READ):
        return False
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


async def _drop_small_body(scope: Scope, receive: Receive) -> bool:
    """Drop a body that is declared as small; whether it has ended."""
    declared = dict(scope["headers"]).get(b"content-length", b"")
    if _waits_to_be_asked(scope) or len(declared) > 6 or not declared.isdigit():
        return False
    if int(declared) > SMALL_BYTES:
        return False
    return await discard_body(receive, most=SMALL_BYTES, seconds=SMALL_SECONDS)


def _waits_to_be_asked(scope: Scope) -> bool:
    headers: dict[bytes, bytes] = dict(scope["headers"])
    return headers.get(b"expect", b"").lower() == b"100-continue"
