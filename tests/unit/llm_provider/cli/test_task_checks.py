"""The checks of an embedding model and of a reranker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llm_provider.cli.check import Report, Wanted, check
from llm_provider.cli.task_checks import DOCUMENTS, EMBEDDING_TEXTS, QUERY

from ..scripted import KEY, MODEL, Change, Scripted, refusal, reply, serving
from .running import run

SAME, OTHER = [0.6, 0.8, 0.0], [0.8, 0.0, 0.6]


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with serving(Scripted()) as scripted:
        yield scripted


def vectors(*given: Any, model: str = MODEL) -> dict[str, Any]:
    """An answer of /v1/embeddings; the order of its entries is not that of the texts."""
    entries = [{"index": index, "embedding": each} for index, each in enumerate(given)]
    return {"model": model, "data": entries[::-1]}


def ranking(*given: Any, model: str = MODEL) -> dict[str, Any]:
    """An answer of /v1/rerank, the best first, as engines have it."""
    entries = [{"index": index, "relevance_score": each} for index, each in enumerate(given)]
    entries.sort(key=lambda entry: str(entry["relevance_score"]), reverse=True)
    return {"model": model, "results": entries}


async def checked(server: Scripted, change: Change, **wanted: Any) -> Report:
    server.reset({"chat": refusal("no chat", 501), "stream": refusal("no chat", 501), **change})
    return await check(server.url, KEY, Wanted(**{"seconds": 5, **wanted}))


NAMES = ["health", "key", "ready", "models", "context"]


async def test_an_embedding_model(server: Scripted) -> None:
    answer = reply(vectors(SAME, OTHER, SAME))
    report = await checked(server, {"embeddings": answer}, task="embedding", dimensions=3)
    assert [outcome.name for outcome in report.checks] == [*NAMES, "vectors", "identity"]
    assert report.ok
    assert report.answer == "vectors of 3 numbers; cosine of two texts 0.480"
    assert report.checks[-2].wanted == "vectors of 3 numbers, one for each text"
    (asked,) = [each for each in server.asked if each.path == "/v1/embeddings"]
    assert asked.body["input"] == list(EMBEDDING_TEXTS)
    # Nobody said how many numbers.
    report = await checked(server, {"embeddings": answer}, task="embedding")
    assert report.ok
    assert report.checks[-2].wanted == "vectors of some numbers, one for each text"


async def test_a_reranker(server: Scripted) -> None:
    report = await checked(server, {"rerank": reply(ranking(-7, 0.5, -8.25))}, task="rerank")
    assert [outcome.name for outcome in report.checks] == [*NAMES, "ranking", "identity"]
    assert report.ok
    assert report.answer == (
        "the document that answers the query is first; scores of -7.000, 0.500, -8.250"
    )
    assert report.checks[-2].wanted == "the document that answers the query first"
    (asked,) = [each for each in server.asked if each.path == "/v1/rerank"]
    assert asked.body["query"] == QUERY
    assert asked.body["documents"] == list(DOCUMENTS)


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (vectors([1.0, 2.0], [2.0, 1.0], [1.0, 2.0]), "vectors of 2 numbers, not of 3"),
        (vectors(SAME, OTHER[:2], SAME), "vectors of 2 and 3 numbers, not of 3"),
        (
            vectors(SAME, OTHER, [0.0, 1.0, 0.0]),
            "two vectors of the same text, with a cosine of 0.800",
        ),
        (
            vectors(SAME, SAME, SAME),
            "the same vector for different texts, with a cosine of 1.000",
        ),
        (vectors(SAME, OTHER), "2 vectors, not one for each of 3 inputs"),
        ({"model": MODEL, "data": "none"}, "0 vectors, not one for each of 3 inputs"),
        (vectors(SAME, "AAAA", SAME), "a vector that is not a list of finite numbers"),
        (vectors(SAME, [], SAME), "a vector that is not a list of finite numbers"),
        (vectors(SAME, [0.0, 0.0, 0.0], SAME), "a vector with zeros only"),
    ],
)
async def test_vectors_that_are_wrong(server: Scripted, answer: object, seen: str) -> None:
    wanted = {"task": "embedding", "dimensions": 3}
    report = await checked(server, {"embeddings": reply(answer)}, **wanted)
    outcome = report.checks[-2]
    assert (outcome.name, outcome.ok, outcome.seen) == ("vectors", False, seen)


async def test_vectors_of_two_lengths(server: Scripted) -> None:
    answer = reply(vectors(SAME, OTHER[:2], SAME))
    report = await checked(server, {"embeddings": answer}, task="embedding")
    assert report.checks[-2].seen == "vectors of different lengths: 2 and 3 numbers"


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (
            ranking(0.9, 0.5, 0.1),
            "scores of 0.900, 0.500, 0.100: the document that answers the query, number 2, has not"
            " the highest",
        ),
        (
            ranking(0.1, 0.5, 0.5),
            "scores of 0.100, 0.500, 0.500: the document that answers the query, number 2, has not"
            " the highest",
        ),
        (ranking(0.9, 0.5), "2 scores, not one for each of 3 inputs"),
        (ranking(0.1, None, 0.2), "a score that is not a finite number"),
        ({"model": MODEL}, "0 scores, not one for each of 3 inputs"),
    ],
)
async def test_rankings_that_are_wrong(server: Scripted, answer: object, seen: str) -> None:
    report = await checked(server, {"rerank": reply(answer)}, task="rerank")
    outcome = report.checks[-2]
    assert (outcome.name, outcome.ok, outcome.seen) == ("ranking", False, seen)


@pytest.mark.parametrize(
    ("task", "name", "answer"),
    [
        ("embedding", "embeddings", vectors(SAME, OTHER, SAME, model="another")),
        ("rerank", "rerank", ranking(1, 2, 0, model="another")),
    ],
)
async def test_an_answer_of_another_model(
    server: Scripted, task: str, name: str, answer: object
) -> None:
    report = await checked(server, {name: reply(answer)}, task=task)
    assert [outcome.seen for outcome in report.checks if not outcome.ok] == [
        "an answer calls its model 'another'; served is 'smoke'"
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--dimensions=3"], "--dimensions is for --task embedding, and --task is chat."),
        (
            ["--task=rerank", "--answer=Paris"],
            "--answer is for --task chat, and --task is rerank.",
        ),
        (
            ["--task=embedding", "--prompt=Hello"],
            "--prompt is for --task chat, and --task is embedding.",
        ),
    ],
)
async def test_options_of_another_task(
    server: Scripted, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert await run("check", f"--url={server.url}", *words) == 2
    assert capsys.readouterr().err == f"llm-provider: {sentence}\n"


async def test_the_command_checks_a_task(
    server: Scripted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.reset({"embeddings": reply(vectors(SAME, OTHER, SAME))})
    words = ["--task=embedding", "--dimensions=3", f"--url={server.url}"]
    assert await run("check", *words) == 0
    assert "\u2713 vectors  vectors of 3 numbers; cosine" in capsys.readouterr().out


async def test_an_engine_that_was_started_for_another_task(server: Scripted) -> None:
    no = refusal("llamacpp was started for chat", 501)
    report = await checked(server, {"embeddings": no}, task="embedding")
    outcome = report.checks[-2]
    assert not outcome.ok
    assert outcome.seen.endswith("llamacpp was started for chat")
