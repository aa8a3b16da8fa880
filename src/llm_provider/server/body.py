"""Reads the bodies of requests, within limits of size, time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

from starlette.requests import ClientDisconnect

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


class BodyBudget:
    """Bytes of memory that all bodies share.

    Only what asks for bytes decides about them, and no request waits for bytes of another one: two
    bodies that are half read cannot wait for each other.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0

    def reserve(self, size: int) -> None:
        """Take `size` bytes. Raises BodyBudgetError where they are not left."""
        if self.used + size > self.total:
            raise BodyBudgetError(
                f"The bodies of waiting requests take {self.used} of {self.total} bytes; "
                f"{size} more do not fit. Send the request again later."
            )
        self.used += size

    def release(self, size: int) -> None:
        """Give `size` bytes back."""
        self.used -= size


class Body:
    """A body in memory; its bytes count against the budget until `release`, or the end of `with`.

    `data` is a bytearray, which grew while the body arrived: a copy as bytes would hold the body
    twice. Its memory is up to an eighth larger than the body.
    """

    def __init__(self, budget: BodyBudget) -> None:
        self.data = bytearray()
        self._budget = budget
        self._reserved = 0

    def reserve(self, size: int) -> None:
        """Count `size` bytes of this body, where fewer are counted. Raises BodyBudgetError."""
        if size > self._reserved:
            self._budget.reserve(size - self._reserved)
            self._reserved = size

    def release(self) -> None:
        """Drop the bytes. A second call does nothing.

        What was decoded from `data` without a copy keeps the bytes in memory: drop that before.
        """
        self.data = bytearray()
        self._budget.release(self._reserved)
        self._reserved = 0

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def content_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """Return the declared size of a body, None where there is none. Raises InvalidLengthError."""
    found = [value.strip() for name, value in headers if name == b"content-length"]
    if not found:
        return None
    # The parser of HTTP refuses this too; an ASGI server with another parser might not.
    if len(set(found)) > 1 or not found[0].isdigit() or len(found[0]) > 18:
        text = ", ".join(value.decode("latin-1") for value in found)
        raise InvalidLengthError(f"Content-Length is invalid: {text[:100]!r}. Send one number.")
    return int(found[0])


async def read_body(
    receive: Receive,
    budget: BodyBudget,
    *,
    most: int,
    seconds: float,
    declared: int | None = None,
) -> Body:
    """Read a request's body: at most `most` bytes, within `seconds`.

    `declared` is the body's Content-Length. A body that is declared too large, or does not fit into
    the budget, is refused before any byte is read. One without a declared size (chunked) counts as
    it grows. Raises BodyRefusedError, or ClientDisconnect where the client leaves; the bytes are
    given back then.
    """
    if declared is not None and declared > most:
        raise BodyTooLargeError(f"The body has {declared} bytes; at most {most} are accepted.")
    body = Body(budget)
    try:
        body.reserve(declared or 0)
        async with asyncio.timeout(seconds):
            await _fill(body, receive, most)
    except TimeoutError:
        arrived = len(body.data)
        body.release()
        raise BodyTimeoutError(
            f"The body did not arrive within {seconds:g} s: {arrived} bytes did"
            + (f", of {declared}." if declared is not None else ".")
        ) from None
    except BaseException:
        body.release()
        raise
    return body


async def _fill(body: Body, receive: Receive, most: int) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size = len(body.data) + len(part)
        if size > most:
            raise BodyTooLargeError(
                f"The body has more than {most} bytes, and no more are accepted."
            )
        body.reserve(size)
        body.data += part
        if not message.get("more_body", False):
            return


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
