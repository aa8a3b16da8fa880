"""Reads the bodies of requests, within limits of size, time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, MutableMapping
from types import TracebackType
from typing import Any

from starlette.requests import ClientDisconnect

from llm_provider.server.body_budget import BodyBudget, OutOfMemoryError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class BodyRefusedError(Exception):
    """A body is not read, or not to its end. `status` is the HTTP status of the answer."""

    status = 400
    code = "body_refused"


class InvalidLengthError(BodyRefusedError):
    """The header Content-Length is no number of bytes."""

    code = "invalid_content_length"


class BodyTooLargeError(BodyRefusedError):
    """A body is larger than one body may be."""

    status = 413
    code = "body_too_large"


class BodyTimeoutError(BodyRefusedError):
    """A body did not arrive within the time limit."""

    status = 408
    code = "body_timeout"


class BodyBudgetError(BodyRefusedError):
    """The bodies in memory leave no room for another one. The client can send it again later."""

    status = 503
    code = "body_memory_full"


class Body:
    """A body in memory; its bytes count against the budget until `release`, or the end of `with`.

    `data` is a bytearray, into which the parts were written as they arrived: a copy as bytes would
    hold the body twice.
    """

    def __init__(self, data: bytearray, budget: BodyBudget, key: Hashable) -> None:
        self.data = data
        self._budget = budget
        self._key = key
        self._size = len(data)

    def release(self) -> None:
        """Drop the bytes. A second call does nothing.

        What was decoded from `data` without a copy keeps the bytes in memory: drop that before.
        """
        self.data = bytearray()
        size, self._size = self._size, 0
        if size:
            self._budget.give_back(size, self._key)

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def declared_size(headers: list[tuple[bytes, bytes]]) -> int | None:
    """Return the size of a body as its request declares it; None for one that comes in chunks.

    Raises InvalidLengthError.
    """
    found = [value.strip() for name, value in headers if name == b"content-length"]
    if not found:
        return None if any(name == b"transfer-encoding" for name, _ in headers) else 0
    # The parser of HTTP refuses this too; an ASGI server with another parser might not.
    if len(set(found)) > 1 or not found[0].isdigit() or len(found[0]) > 18:
        text = ", ".join(value.decode("latin-1") for value in found)
        raise InvalidLengthError(f"Content-Length is invalid: {text[:100]!r}. Send one number.")
    return int(found[0])


async def read_body(
    receive: Receive,
    budget: BodyBudget,
    *,
    key: Hashable,
    most: int,
    seconds: float,
    declared: int | None = None,
) -> Body:
    """Read a request's body: at most `most` bytes, within `seconds`.

    `declared` is the body's Content-Length. Nothing is read before there is memory for all of it,
    in turn with the bodies of other keys; one without a declared size (chunked) takes `most` bytes
    until its size is known. Raises BodyRefusedError, or ClientDisconnect where the client leaves;
    the bytes are given back then.
    """
    if declared is not None and declared > most:
        raise BodyTooLargeError(f"The body has {declared} bytes; at most {most} are accepted.")
    size = most if declared is None else declared
    try:
        await budget.take(size, key, seconds)
    except OutOfMemoryError:
        raise BodyBudgetError(
            f"The bodies of other requests took the memory for bodies, {budget.total} bytes, for "
            f"{seconds:g} s. Send the request again later."
        ) from None
    data = bytearray(declared or 0)
    arrived = 0
    try:
        async with asyncio.timeout(seconds):
            more = True
            while more:
                part, more = await _receive(receive)
                if arrived + len(part) > size:
                    raise BodyTooLargeError(
                        f"The body has more than {size} bytes, and no more are accepted."
                    )
                data[arrived : arrived + len(part)] = part
                arrived += len(part)
    except BaseException as error:
        budget.give_back(size, key)
        if isinstance(error, TimeoutError):
            raise BodyTimeoutError(
                f"The body did not arrive within {seconds:g} s: {arrived} bytes did"
                + (f", of {declared}." if declared is not None else ".")
            ) from None
        raise
    del data[arrived:]
    budget.give_back(size - arrived, key)
    return Body(data, budget, key)


async def _receive(receive: Receive) -> tuple[bytes, bool]:
    """Return the next part of a body, and whether more follows. Raises ClientDisconnect."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


async def discard_body(receive: Receive, *, most: int, seconds: float) -> bool:
    """Read and drop the rest of a body; whether it ended within `most` bytes and `seconds`.

    For a connection that is closed after the answer: a client whose connection breaks while it
    sends may not read why. On other connections the server itself drops what is left.
    """
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while size <= most:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return False
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return True
    except TimeoutError:
        pass
    return False
