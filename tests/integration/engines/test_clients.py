"""Clients that leave, read slowly, or come in numbers; and characters cut anywhere on the way."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from urllib.parse import urlsplit

import pytest

from tests.integration.engines.serving import (
    CHAT,
    KEY,
    Served,
    events_of,
    finish_of,
    provider_of,
    text_of,
)
from tests.waiting import until_async

HELLO = {"messages": [{"role": "user", "content": "Are you there?"}]}
# Half a minute of work, for every engine, unless it is told to stop.
LONG = {
    "messages": [{"role": "user", "content": "Write a very long story about the sea."}],
    "temperature": 0,
}


async def settled(served: Served, working: int) -> None:
    """Wait until the engine says that it works on so many requests."""
    engine = served.engine
    # llama-server looks for clients that have left once it has had nothing else to do for a second,
    # and answering this question is something to do.
    await until_async(
        engine.busy,
        f"{engine.provider} to work on {working}",
        lambda found: found == working,
        seconds=180,
        every=1.2,
    )


async def test_closing_a_stream_stops_the_engine(smollm2: Served) -> None:
    await settled(smollm2, 0)
    async with smollm2.provider() as provider:
        async with aclosing(provider.stream(LONG)) as events:
            async for event in events:
                if text_of([event]):
                    break
            assert await asyncio.to_thread(smollm2.engine.busy) == 1
        await settled(smollm2, 0)


async def test_cancelling_a_whole_answer_stops_the_engine(smollm2: Served) -> None:
    await settled(smollm2, 0)
    async with smollm2.provider() as provider:
        asking = asyncio.create_task(provider.chat(LONG))
        await settled(smollm2, 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await settled(smollm2, 0)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_leaves_frees_its_slot(smollm2: Served, streamed: bool) -> None:
    """All slots are taken; one client leaves, one that waits gets its place, the others go on."""
    await settled(smollm2, 0)
    slots = smollm2.engine.parallel
    async with smollm2.api.client() as client:

        async def ask() -> None:
            async with client.stream("POST", CHAT, json=LONG | {"stream": streamed}) as answer:
                assert answer.status_code == 200
                async for _ in answer.aiter_raw():
                    pass

        asking = [asyncio.create_task(ask()) for _ in range(slots)]
        try:
            await settled(smollm2, slots)
            waiting = asyncio.create_task(client.post(CHAT, json=LONG | {"max_tokens": 2}))
            done, _ = await asyncio.wait([waiting, *asking], timeout=1)
            assert not done, "All slots are taken, for half a minute and more."
            asking[0].cancel()
            answer = await asyncio.wait_for(waiting, 20)
            assert answer.json()["usage"]["completion_tokens"] == 2
            await settled(smollm2, slots - 1)
            assert not any(task.done() for task in asking[1:])
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        await settled(smollm2, 0)


async def test_a_client_that_leaves_the_queue_is_never_asked_for(smollm2: Served) -> None:
    await settled(smollm2, 0)
    slots = smollm2.engine.parallel
    async with smollm2.api.client() as client:
        asking = [asyncio.create_task(client.post(CHAT, json=LONG)) for _ in range(2 * slots)]
        try:
            await settled(smollm2, slots)
            for task in asking[slots:]:
                task.cancel()
            await asyncio.gather(*asking[slots:], return_exceptions=True)
            for task in asking[:slots]:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        finally:
            for task in asking:
                task.cancel()
    await settled(smollm2, 0)
    # Had one come through, it would work for half a minute.
    await asyncio.sleep(0.5)
    assert await asyncio.to_thread(smollm2.engine.busy) == 0


async def test_a_client_that_reads_slowly(endless: Served) -> None:
    """A megabyte of events into a small window: all of it arrives, and nobody else waits for it."""
    body = json.dumps(HELLO | {"max_tokens": 3500, "stream": True}).encode()
    where = urlsplit(endless.api.base_url)
    request = (
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode() + body
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect((where.hostname, where.port))
    reader, writer = await asyncio.open_connection(sock=plain, limit=4096)
    writer.write(request)
    await writer.drain()
    raw = b""
    async with endless.at("api") as engine:
        while chunk := await reader.read(8192):
            raw += chunk
            await asyncio.sleep(0.005)
            if len(raw) % 50_000 < len(chunk):
                answer = await asyncio.wait_for(engine.chat(max_tokens=10), 60)
                assert answer["choices"][0]["message"]["content"] == endless.answer
    writer.close()
    assert len(raw) > 500_000
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert b"chunked" in head.lower()
    events = [json.loads(line[6:]) for line in unchunked(rest) if line != b"data: [DONE]"]
    assert text_of(events) == endless.answer * 350
    assert finish_of(events) == "length"


def unchunked(raw: bytes) -> list[bytes]:
    """The events of a body in chunked encoding, which came to its end."""
    body = b""
    while True:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        body, raw = body + raw[:length], raw[length + 2 :]
    assert raw == b"\r\n"
    assert body.endswith(b"data: [DONE]\n\n")
    return [event for event in body.split(b"\n\n") if event]


async def test_16_in_parallel(smoke: Served) -> None:
    """Four times as many as there are slots: every answer is whole, none comes from another's."""
    async with smoke.at("api") as engine:

        async def ask(number: int) -> str:
            if number % 2:
                return text_of([event async for event in engine.stream()])
            content: str = (await engine.chat())["choices"][0]["message"]["content"]
            return content

        assert await asyncio.gather(*(ask(n) for n in range(16))) == [smoke.answer] * 16


async def test_parallel_answers_are_not_mixed_up(endless: Served) -> None:
    async with endless.at("api") as engine:

        async def ask(tokens: int) -> int:
            events = [event async for event in engine.stream(max_tokens=tokens)]
            return len(text_of(events).split())

        lengths = [7 * number + 3 for number in range(16)]
        assert await asyncio.gather(*map(ask, lengths)) == lengths


async def test_conversations_that_need_more_than_there_is_take_turns(endless: Served) -> None:
    """Where all share one context, those that would outgrow it together wait for each other."""
    async with endless.at("api") as engine:

        async def ask(tokens: int) -> int:
            events = [event async for event in engine.stream(max_tokens=tokens)]
            return len(text_of(events).split())

        assert await asyncio.gather(*map(ask, [2000] * 6)) == [2000] * 6


async def test_conversations_with_a_real_model_take_turns(smollm2: Served) -> None:
    """Where they share one context: what a text takes of it is estimated by its size."""
    async with smollm2.at("api") as engine:

        async def read(number: int) -> str:
            messages = [{"role": "user", "content": f"Story {number}: " + "the sea and me. " * 370}]
            if number % 2:
                events = engine.stream(messages=messages, max_tokens=20)
                return finish_of([event async for event in events])
            answer = await engine.chat(messages=messages, max_tokens=20)
            reason: str = answer["choices"][0]["finish_reason"]
            return reason

        assert set(await asyncio.gather(*map(read, range(4)))) <= {"length", "stop"}


async def test_no_engine_is_given_more_than_its_slots(smollm2: Served) -> None:
    await settled(smollm2, 0)
    slots = smollm2.engine.parallel
    body = LONG | {"max_tokens": 16}
    async with smollm2.api.client() as client:
        asking = [asyncio.create_task(client.post(CHAT, json=body)) for _ in range(12)]
        most = 0
        while not all(task.done() for task in asking):
            most = max(most, await asyncio.to_thread(smollm2.engine.busy))
            await asyncio.sleep(0.1)
        assert {(await task).status_code for task in asking} == {200}
    assert most == slots


# Characters of several bytes.


async def test_characters_of_several_tokens(unicode: Served, level: str) -> None:
    async with unicode.at(level) as engine:
        answer = await engine.chat()
        events = [event async for event in engine.stream()]
    assert answer["choices"][0]["message"]["content"] == text_of(events) == unicode.answer


async def test_an_answer_may_end_within_a_character(unicode: Served, level: str) -> None:
    """Each byte is a token: a limit of tokens cuts characters. What is cut is left out."""
    async with unicode.at(level) as engine:
        for limit in range(4, 10):
            body = {"max_tokens": limit}
            text = text_of([event async for event in engine.stream(**body)])
            whole = (await engine.chat(**body))["choices"][0]["message"]["content"]
            assert text == whole
            assert unicode.answer.startswith(text)


@asynccontextmanager
async def dribbling(base_url: str, size: int) -> AsyncGenerator[str, None]:
    """An address before the engine's, where answers come `size` bytes at a time."""
    where = urlsplit(base_url)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection(where.hostname, where.port)

        async def there() -> None:
            while data := await reader.read(65536):
                outer.write(data)

        sending = asyncio.create_task(there())
        while data := await inner.read(65536):
            for start in range(0, len(data), size):
                writer.write(data[start : start + size])
                await writer.drain()
                # The other side's turn to read.
                await asyncio.sleep(0)
        sending.cancel()
        outer.close()
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_bytes_that_come_a_few_at_a_time(unicode: Served, size: int) -> None:
    async with (
        dribbling(unicode.engine.base_url, size) as address,
        provider_of(unicode.engine, base_url=address) as provider,
    ):
        # A machine that is busy joins some of the bytes again.
        for _ in range(10):
            raw = [chunk async for chunk in provider.raw_stream(CHAT, HELLO)]
            if not all(map(_is_text, raw)):
                break
        else:
            pytest.fail("No character was cut on the way.")
        events = [event async for event in provider.stream(HELLO)]
        pieces = [piece async for piece in provider.generate_stream("Are you there?")]
    assert text_of(events) == "".join(pieces) == unicode.answer


def _is_text(chunk: bytes) -> bool:
    try:
        chunk.decode()
    except UnicodeDecodeError:
        return False
    return True


async def test_the_api_passes_cut_characters_on(unicode: Served) -> None:
    """A question of many characters too: what goes in is what the engine counts."""
    question = "\U0001f680\u4e16\u754c" * 200
    async with unicode.api.client() as client:
        body = {"messages": [{"role": "user", "content": question}], "stream": True}
        asked = body | {"stream_options": {"include_usage": True}}
        async with client.stream("POST", CHAT, json=asked) as answer:
            events = [event async for event in events_of(answer)]
    assert text_of(events) == unicode.answer
    assert events[-1]["usage"]["prompt_tokens"] >= len(question.encode())
