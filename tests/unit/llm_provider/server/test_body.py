"""Bodies, read through ASGI within their limits."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from llm_provider.server.body import (
    BodyBudgetError,
    BodyRefusedError,
    BodyTimeoutError,
    BodyTooLargeError,
    InvalidLengthError,
    declared_size,
    discard_body,
    read_body,
)
from llm_provider.server.body_budget import BodyBudget

MIB = 1024 * 1024
KEY = "alice"


def sender(
    *parts: bytes, end: bool = True, pause: float = 0.0
) -> Callable[[], Awaitable[dict[str, Any]]]:
    """An ASGI `receive`; without `end`, nothing comes after the last part."""
    left = list(parts)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause)
        if not left:
            await asyncio.Event().wait()
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left) or not end}

    return receive


async def test_a_body_in_parts_is_one_body() -> None:
    budget = BodyBudget(100)
    body = await read_body(sender(b"ab", b"", b"cd"), budget, key=KEY, most=10, seconds=1)
    assert body.data == b"abcd"
    assert budget.used == 4
    body.release()
    body.release()
    assert (budget.used, len(body.data)) == (0, 0)


async def test_an_empty_body() -> None:
    budget = BodyBudget(10)
    with await read_body(sender(b""), budget, key=KEY, most=10, seconds=1) as body:
        assert body.data == b""


async def test_the_end_of_with_releases() -> None:
    budget = BodyBudget(100)
    with await read_body(sender(b"abcd"), budget, key=KEY, most=10, seconds=1, declared=4):
        assert budget.used == 4
    assert budget.used == 0


async def test_a_declared_size_is_refused_before_anything_is_read() -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError("read")

    budget = BodyBudget(100)
    with pytest.raises(BodyTooLargeError) as caught:
        await read_body(receive, budget, key=KEY, most=10, seconds=1, declared=11)
    assert str(caught.value) == "The body has 11 bytes; at most 10 are accepted."
    assert (caught.value.status, caught.value.code) == (413, "body_too_large")


async def test_a_body_waits_for_memory_and_is_refused_after_its_time() -> None:
    budget = BodyBudget(100)
    await budget.take(95, "bob", 1)
    with pytest.raises(BodyBudgetError) as full:
        await read_body(sender(b"123456"), budget, key=KEY, most=10, seconds=0.05, declared=6)
    assert str(full.value) == (
        "The bodies of other requests took the memory for bodies, 100 bytes, for 0.05 s. "
        "Send the request again later."
    )
    assert (full.value.status, full.value.code, budget.used) == (503, "body_memory_full", 95)
    reading = asyncio.create_task(
        read_body(sender(b"123456"), budget, key=KEY, most=10, seconds=9, declared=6)
    )
    await asyncio.sleep(0)
    assert not reading.done()
    budget.give_back(95, "bob")
    with await reading as body:
        assert (bytes(body.data), budget.used) == (b"123456", 6)


async def test_a_body_without_a_declared_size_takes_the_most_until_it_is_known() -> None:
    budget = BodyBudget(100)
    with pytest.raises(BodyTooLargeError, match="more than 10 bytes"):
        await read_body(sender(b"123456", b"78901"), budget, key=KEY, most=10, seconds=1)
    assert budget.used == 0
    reading = asyncio.create_task(
        read_body(sender(b"123", b"4", pause=0.01), budget, key=KEY, most=10, seconds=1)
    )
    await asyncio.sleep(0)
    assert budget.used == 10
    with await reading as body:
        assert (bytes(body.data), budget.used) == (b"1234", 4)
    assert budget.used == 0


async def test_a_body_of_another_size_than_declared() -> None:
    budget = BodyBudget(100)
    with pytest.raises(BodyTooLargeError, match="more than 2 bytes"):
        await read_body(sender(b"123456"), budget, key=KEY, most=10, seconds=1, declared=2)
    body = await read_body(sender(b"12"), budget, key=KEY, most=10, seconds=1, declared=6)
    assert (bytes(body.data), budget.used) == (b"12", 2)
    body.release()
    assert budget.used == 0


async def test_a_slow_body_is_refused() -> None:
    budget = BodyBudget(100)
    slow = sender(*[b"x"] * 50, pause=0.02)
    with pytest.raises(
        BodyTimeoutError, match=r"within 0\.1 s: [0-9] bytes did, of 50\.$"
    ) as caught:
        await read_body(slow, budget, key=KEY, most=60, seconds=0.1, declared=50)
    assert (caught.value.status, caught.value.code, budget.used) == (408, "body_timeout", 0)
    with pytest.raises(BodyTimeoutError, match=r"within 0\.1 s: 2 bytes did\.$"):
        await read_body(sender(b"ab", end=False), budget, key=KEY, most=60, seconds=0.1)
    assert budget.used == 0


async def test_a_client_that_leaves_gives_its_bytes_back() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    budget = BodyBudget(100)
    with pytest.raises(ClientDisconnect):
        await read_body(receive, budget, key=KEY, most=10, seconds=1, declared=5)
    assert budget.used == 0


async def test_a_cancelled_request_gives_its_bytes_back() -> None:
    budget = BodyBudget(100)
    reading = asyncio.create_task(
        read_body(sender(b"abc", end=False), budget, key=KEY, most=10, seconds=9, declared=5)
    )
    await asyncio.sleep(0.01)
    assert budget.used == 5
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert budget.used == 0


async def test_many_bodies_at_once_stay_within_the_budget() -> None:
    budget = BodyBudget(1000)
    most = 0

    async def one(key: str, declared: int | None) -> None:
        nonlocal most
        receive = sender(*[b"x" * 100] * 4, pause=0.001)
        with await read_body(receive, budget, key=key, most=450, seconds=20, declared=declared):
            most = max(most, budget.used)
            await asyncio.sleep(0.001)

    requests = [one("ab"[number % 2], (None, 400)[number % 3 % 2]) for number in range(20)]
    await asyncio.wait_for(asyncio.gather(*requests), 20)  # all of them, one after the other
    assert 400 <= most <= 1000
    assert budget.used == 0


async def test_a_body_is_held_once() -> None:
    """20 MiB in pieces of 64 KiB: at no moment twice as much."""
    piece = b"x" * 65536
    count = 320

    async def receive() -> dict[str, Any]:
        nonlocal count
        count -= 1
        return {"type": "http.request", "body": bytes(bytearray(piece)), "more_body": count > 0}

    gc.collect()
    tracemalloc.start()
    try:
        body = await read_body(receive, BodyBudget(32 * MIB), key=KEY, most=20 * MIB, seconds=60)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(body.data) == 20 * MIB
    assert peak < 24 * MIB


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ([], 0),
        ([(b"transfer-encoding", b"chunked")], None),
        ([(b"content-length", b"12")], 12),
        ([(b"content-length", b" 0 "), (b"content-length", b"0")], 0),
    ],
)
def test_declared_size(headers: list[tuple[bytes, bytes]], length: int | None) -> None:
    assert declared_size(headers) == length


@pytest.mark.parametrize(
    "values", [[b"-1"], [b"1", b"2"], [b""], [b"0x1"], [b"9" * 19], [b"\xff"], [b"1, 1"]]
)
def test_an_invalid_content_length_is_refused(values: list[bytes]) -> None:
    with pytest.raises(InvalidLengthError, match=r"^Content-Length is invalid: '.*'\. Send one"):
        declared_size([(b"content-length", value) for value in values])


def test_every_refusal_has_a_status() -> None:
    kinds = {kind.code: kind.status for kind in BodyRefusedError.__subclasses__()}
    assert kinds == {
        "invalid_content_length": 400,
        "body_too_large": 413,
        "body_timeout": 408,
        "body_memory_full": 503,
    }


async def test_the_rest_of_a_body_is_discarded() -> None:
    assert await discard_body(sender(b"abc", b"def"), most=100, seconds=1)
    assert not await discard_body(sender(b"abc", b"def", b"ghi"), most=4, seconds=1)
    assert not await discard_body(sender(b"abc", end=False), most=100, seconds=0.05)

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    assert not await discard_body(gone, most=100, seconds=1)
