from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest
from fastapi.responses import Response

from llm_provider.cli.bench import Address, Level, Load, Tally, Watcher, bench, quantile
from llm_provider.cli.bench_prompt import make_prompt, words_for
from llm_provider.errors import (
    ConfigurationError,
    EngineLoadingError,
    EngineTimeoutError,
    EngineUnreachableError,
    LLMError,
)

from .. import fake
from ..fake import FakeEngine, free_port
from ..scripted import (
    DONE,
    KEY,
    MODEL,
    READY,
    Reply,
    Scripted,
    event,
    paced,
    refusal,
    reply,
    serving,
    sse,
    streamed,
    words,
)


@pytest.fixture(scope="module")
def serve() -> Iterator[Scripted]:
    with serving(Scripted()) as scripted:
        yield scripted


@pytest.fixture
def server(serve: Scripted) -> Scripted:
    serve.reset()
    return serve


def asked(server: Scripted) -> int:
    """How many chat requests came."""
    return sum(one.path == "/v1/chat/completions" for one in server.asked)


async def test_a_chat_api(server: Scripted) -> None:
    result = await bench(Load(requests=5, levels=(1, 2)), Address(server.url, KEY))
    assert result.failed == 0
    assert result.models == [MODEL]
    assert [level.parallel for level in result.levels] == [1, 2]
    one, two = (level.url for level in result.levels)
    assert (one.requests, two.requests) == (5, 6)  # whole rounds
    assert asked(server) == 1 + 5 + 6  # and one that only warms up
    assert len(one.ttfts) == len(one.paces) == 5
    assert one.tokens == 5 * 6
    assert 0 < min(one.ttfts) < one.seconds
    told = json.loads(json.dumps(result.as_dict()))
    assert (told["ok"], told["url"], told["compare"], told["models"]) == (
        True, server.url, None, [MODEL],
    )  # fmt: skip
    level = told["levels"][0]
    assert (level["compare"], level["added_ttft_ms"], level["throughput_ratio"]) == (None,) * 3
    assert level["url"]["ttft_ms"]["p50"] == pytest.approx(
        (quantile(one.ttfts, 0.5) or 0) * 1000, abs=0.01
    )
    assert level["url"]["tokens_per_second"]["all"] == pytest.approx(30 / one.seconds, abs=0.1)
    assert level["url"]["tokens_per_second"]["stream"] > 0


async def test_as_many_run_at_once_as_the_level_says(engine: FakeEngine) -> None:
    for parallel in (1, 4, 8):
        engine.most_running = 0
        await bench(Load(requests=3, levels=(parallel,)), Address(engine.url))
        assert engine.most_running == parallel


@pytest.mark.parametrize("kind", ["llamacpp", "ollama", "vllm"])
async def test_an_engine_without_a_key(kind: str) -> None:
    async with FakeEngine(kind).serving() as engine:
        result = await bench(Load(requests=2, levels=(2,)), Address(f"{engine.url}/v1"))
    assert result.failed == 0
    assert result.models == [f"{fake.MODEL}:latest" if kind == "ollama" else fake.MODEL]
    assert result.levels[0].url.tokens == 2 * len(fake.WORDS)
    assert "authorization" not in engine.requests[-1].headers
    assert engine.asked[-1]["model"] == result.models[0]


async def test_two_addresses_in_turns(server: Scripted, engine: FakeEngine) -> None:
    order: list[str] = []
    answer = paced(*streamed())

    async def engine_answer(exchange: fake.Exchange) -> None:
        order.append("B")
        await engine.chat(exchange)

    engine.on("/v1/chat/completions", engine_answer)

    def api_answer() -> Response:
        order.append("A")
        return answer()

    server.reset({"stream": api_answer})
    result = await bench(
        Load(requests=3, levels=(1,)), Address(server.url, KEY), Address(engine.url)
    )
    assert "".join(order) == "AB" + "ABBAAB"
    (level,) = result.levels
    assert level.compare is not None
    assert level.url.requests == level.compare.requests == 3
    assert level.added_ttft is not None
    assert level.throughput_ratio is not None


def test_what_the_first_address_adds_to_the_second() -> None:
    mine = Tally(ttfts=[0.030, 0.010, 0.020], tokens=30, seconds=0.5, requests=3)
    other = Tally(ttfts=[0.004, 0.005, 0.006], tokens=30, seconds=0.4, requests=3)
    level = Level(1, mine, other).as_dict()
    assert level["added_ttft_ms"] == {"p50": 15.0, "p95": 23.1}
    assert level["throughput_ratio"] == 0.8


async def test_each_address_is_first_at_least_once(engine: FakeEngine) -> None:
    address = Address(engine.url)
    result = await bench(Load(requests=1, levels=(4,)), address, address)
    assert result.levels[0].url.requests == 2 * 4


@pytest.mark.parametrize(
    ("answer", "words_of_it"),
    [
        (refusal("Out of order.", 500), "refused with status 500: Out of order."),
        (refusal("Too many.", 429, "queue_full"), "refused with status 429: Too many."),
        (sse(*streamed()[:-1]), "without its end."),
        (sse(*words(), DONE), "without a finish_reason."),
        (sse(event({}, "stop"), DONE), "gave an answer without text"),
        (sse(*words(), b'data: {"error": "cut"}\n\n', DONE), "broke off with an error: cut"),
        (sse(b"data: [1]\n\n", DONE), "is not an object"),
        (reply({"hello": 1}), "not text/event-stream."),
    ],
)
async def test_a_request_that_fails_is_counted_and_told(
    server: Scripted, answer: Reply, words_of_it: str
) -> None:
    answers = iter([paced(*streamed()), answer, answer])
    server.reset({"stream": lambda: next(answers, paced(*streamed()))()})
    result = await bench(Load(requests=4, levels=(2,)), Address(server.url, KEY))
    tally = result.levels[0].url
    assert (tally.requests, tally.failed, len(tally.ttfts)) == (4, 2, 2)
    assert all(words_of_it in words for words in tally.failures)
    assert result.as_dict()["ok"] is False


async def test_an_answer_that_takes_too_long_has_failed(server: Scripted) -> None:
    answers = iter([paced(*streamed())])
    endless = paced(*words("on and on " * 1000), seconds=0.05)
    server.reset({"stream": lambda: next(answers, endless)()})
    result = await bench(Load(requests=2, levels=(2,), timeout=2), Address(server.url, KEY))
    assert result.levels[0].url.failures == {f"{server.url} gave no complete answer within 2 s.": 2}


async def test_the_result_does_not_repeat_credentials(server: Scripted) -> None:
    url = server.url.replace("//", "//user:S3CR3T@")
    load = Load(requests=1, levels=(1,))
    result = await bench(load, Address(url, KEY), Address(url, KEY))
    assert (result.failed, result.url) == (0, server.url.replace("//", "//***@"))
    assert result.compare == result.url
    server.reset({"stream": refusal("No.", 400)})
    with pytest.raises(LLMError) as caught:
        await bench(load, Address(url, KEY))
    assert "S3CR3T" not in str(caught.value)


async def test_no_round_begins_after_the_levels_time(server: Scripted) -> None:
    seen: list[tuple[int, int, int]] = []

    class Listening(Watcher):
        def done(self, parallel: int, done: int, total: int) -> None:
            seen.append((parallel, done, total))

    load = Load(requests=1000, levels=(2, 4), seconds=1e-6)
    result = await bench(load, Address(server.url, KEY), watcher=Listening())
    assert [level.url.requests for level in result.levels] == [2, 4]
    assert seen == [
        *((2, done, 1000) for done in range(3)),
        *((4, done, 1000) for done in range(5)),
    ]


async def test_what_fails_at_the_start_is_raised(server: Scripted) -> None:
    load = Load(requests=1, levels=(1,), timeout=2)
    with pytest.raises(EngineUnreachableError):
        await bench(load, Address(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(LLMError, match="401"):
        await bench(load, Address(server.url, "another"))
    server.reset({"ready": refusal("Loading.", 503, "engine_not_ready")})
    with pytest.raises(EngineLoadingError):
        await bench(load, Address(server.url, KEY))
    server.reset({"stream": paced(*words("on and on " * 1000), seconds=0.05)})
    with pytest.raises(EngineTimeoutError, match="gave no complete answer"):
        await bench(load, Address(server.url, KEY))


@pytest.mark.parametrize("names", [[], ["a", "b"]])
async def test_an_engine_with_several_models_needs_one_named(
    server: Scripted, names: list[str]
) -> None:
    models = reply({"data": [{"id": name} for name in names]})
    server.reset({"ready": refusal("File Not Found", 404), "models": models})
    load = Load(requests=1, levels=(1,))
    with pytest.raises(ConfigurationError, match="name one with --model"):
        await bench(load, Address(server.url, KEY))
    result = await bench(load, Address(server.url, KEY), model="b")
    assert result.models == ["b"]
    assert server.asked[-1].body["model"] == "b"


async def test_the_chat_apis_model_and_not_an_alias_of_it(server: Scripted) -> None:
    server.reset({"ready": reply(READY | {"model": "the-one"})})
    result = await bench(Load(requests=1, levels=(1,)), Address(server.url, KEY))
    assert result.models == ["the-one"]


@pytest.mark.parametrize(
    ("values", "share", "value"),
    [
        ([], 0.5, None),
        ([3.0], 0.95, 3.0),
        ([1.0, 2.0], 0.5, 1.5),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.5),
        ([1.0, 2.0, 3.0], 0.0, 1.0),
        ([1.0, 2.0, 3.0], 1.0, 3.0),
        ([float(n) for n in range(101)], 0.95, 95.0),
    ],
)
def test_quantile(values: list[float], share: float, value: float | None) -> None:
    random.Random(1).shuffle(values)  # noqa: S311 - the order must not matter
    assert quantile(values, share) == value


def test_a_level_without_a_single_answer() -> None:
    level = Level(2, Tally(seconds=1.0, requests=2), Tally(seconds=1.0, requests=2))
    told = level.as_dict()
    assert told["url"]["ttft_ms"] == {"p50": None, "p95": None}
    assert told["url"]["tokens_per_second"] == {"stream": None, "all": None}
    assert (told["added_ttft_ms"], told["throughput_ratio"]) == (None, None)


# Prompts of a length


def counting(server: Scripted, each_word: int = 2, cached: int = 0) -> None:
    """Have the server count tokens in prompts: so many for each word."""

    def answer() -> Response:
        words_of_prompt = len(server.asked[-1].body["messages"][0]["content"].split())
        usage = {
            "prompt_tokens": each_word * words_of_prompt,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens": 3,
        }
        counted = f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode()
        return paced(*words("a b c"), event({}, "stop"), counted, DONE)()

    server.reset({"stream": answer})


async def test_prompts_of_about_so_many_tokens(server: Scripted) -> None:
    counting(server)
    load = Load(requests=4, levels=(2,), prompt_tokens=200)
    result = await bench(load, Address(server.url, KEY))
    assert result.failed == 0
    prompts = [one.body["messages"][0]["content"] for one in server.asked if one.body]
    warm, *measured = prompts
    # The first has 32 words, and a task; the server counts them, and so the length is known.
    assert len(set(prompts)) == len(prompts) == 5
    (tally,) = [level.url for level in result.levels]
    assert tally.prompt_tokens / 4 == pytest.approx(200, rel=0.2)
    assert len({" ".join(prompt.split()[:4]) for prompt in measured}) == 4
    assert len(warm.split()) < len(measured[0].split())
    assert 0 < tally.prompt_seconds <= tally.seconds
    assert tally.prompt_rate == pytest.approx(tally.prompt_tokens / tally.prompt_seconds)
    told = result.as_dict()
    assert told["prompt_tokens"] == 200
    level = told["levels"][0]
    assert level["begun"] < level["ended"]
    assert level["url"]["prompt_tokens"] == tally.prompt_tokens
    assert level["url"]["prompt_tokens_per_second"] == pytest.approx(tally.prompt_rate, abs=0.1)


async def test_tokens_of_the_servers_cache_were_not_read(server: Scripted) -> None:
    counting(server, cached=30)
    result = await bench(Load(requests=2, levels=(1,), prompt_tokens=100), Address(server.url, KEY))
    assert result.levels[0].url.prompt_tokens / 2 == pytest.approx(100 - 30, rel=0.3)


async def test_a_server_that_counts_no_prompts(server: Scripted) -> None:
    result = await bench(Load(requests=1, levels=(1,), prompt_tokens=100), Address(server.url, KEY))
    assert result.failed == 0
    tally = result.levels[0].url
    assert (tally.prompt_tokens, tally.prompt_rate) == (0, None)
    assert tally.as_dict()["prompt_tokens_per_second"] is None
    (_, prompt) = [one.body["messages"][0]["content"] for one in server.asked if one.body]
    assert len(prompt.split()) > 100


def test_the_words_of_a_prompt() -> None:
    source = random.Random(1)  # noqa: S311 (a test repeats)
    one, other = make_prompt(40, source), make_prompt(40, source)
    assert one != other
    assert len(one.split()) == len(other.split())
    assert words_for(128, None) == 128
    # A template and a task of 32 tokens, and a token for each word.
    assert words_for(128, 64) == 64
    assert words_for(1, 640) == 1
