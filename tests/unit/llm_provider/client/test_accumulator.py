"""A streamed answer, put together as its events arrive."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_provider import ChatCompletionAccumulator, LlamaCpp, MalformedAnswer
from llm_provider.providers.chat_events import ChatEvents

from ..fake import ANSWER, MODEL, FakeEngine, completion, delta_event, event, stream_of


def accumulated(raw: bytes) -> ChatCompletionAccumulator:
    answer = ChatCompletionAccumulator()
    for one in ChatEvents().feed(raw):
        answer.add(one)
    return answer


async def test_a_streamed_answer_is_the_whole_one(engine: FakeEngine, llm: LlamaCpp) -> None:
    answer = ChatCompletionAccumulator()
    told = ""
    options = {"stream_options": {"include_usage": True}}
    async with llm.stream(messages=[{"role": "user", "content": "Hello"}], **options) as events:
        async for one in events:
            told += answer.add(one)
    whole: Any = answer.completion()
    assert whole.pop("timings") == {"prompt_n": 7, "cache_n": 0, "predicted_n": 6}
    assert whole == completion(f"{ANSWER} ")
    assert (answer.text, told) == (f"{ANSWER} ", f"{ANSWER} ")
    assert (answer.finish_reason, answer.model) == ("stop", MODEL)
    assert answer.usage == whole["usage"]
    assert (answer.reasoning, answer.tool_calls) == ("", [])


def test_an_answer_so_far() -> None:
    answer = accumulated(event("Hel"))
    assert answer.completion()["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hel"},
            "finish_reason": None,
        }
    ]
    assert (answer.finish_reason, answer.usage) == (None, None)
    assert ChatCompletionAccumulator().completion()["choices"] == []
    assert ChatCompletionAccumulator().tool_calls == []


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning(field: str) -> None:
    raw = delta_event({field: "Well, "}) + delta_event({field: "so."}) + event("Yes")
    answer = accumulated(raw)
    assert (answer.reasoning, answer.thoughts) == ("Well, so.", ["Well, ", "so."])
    assert (answer.text, answer.texts) == ("Yes", ["Yes"])
    message = answer.completion()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Yes", field: "Well, so."}


def test_a_null_leaves_a_field_as_it_was() -> None:
    """vLLM has `usage: null` in each event but one."""
    usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
    answer = accumulated(event("a", usage=None) + event("b", usage=usage) + event("c", usage=None))
    assert answer.usage == answer.completion()["usage"] == usage


def call(index: int | None = None, **function: str) -> dict[str, Any]:
    found: dict[str, Any] = {"function": function}
    return found if index is None else {"index": index, **found}


def test_tool_calls_in_pieces() -> None:
    """As llama-server and vLLM send them; the latter repeats ids and names."""
    first = {**call(0, name="weather", arguments=""), "id": "a", "type": "function"}
    again = {**call(0, name="weather", arguments='{"city": '), "id": "a"}
    deltas = [[first], [again], [{**call(1, name="time", arguments="{}"), "id": "b"}]]
    raw = b"".join(delta_event({"tool_calls": calls}) for calls in deltas)
    raw += delta_event({"tool_calls": [call(0, arguments='"Paris"}')]})
    answer = accumulated(raw + event(finish_reason="tool_calls"))
    assert answer.tool_calls == [
        {
            "id": "a",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
        },
        {"id": "b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]
    assert json.loads(answer.tool_calls[0]["function"]["arguments"]) == {"city": "Paris"}
    assert answer.completion()["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": None, "tool_calls": answer.tool_calls},
        "finish_reason": "tool_calls",
    }


def test_tool_calls_without_an_index_are_complete() -> None:
    whole = [{**call(name=name, arguments="{}"), "id": name} for name in ("a", "b")]
    answer = accumulated(
        delta_event({"tool_calls": whole[:1]}) + delta_event({"tool_calls": whole[1:]})
    )
    assert [one["function"]["name"] for one in answer.tool_calls] == ["a", "b"]


def test_several_choices_with_logprobs() -> None:
    def choice(index: int, text: str) -> bytes:
        logprobs = {"content": [{"token": text, "logprob": -0.5}]}
        one = {"index": index, "delta": {"content": text}, "logprobs": logprobs}
        return f"data: {json.dumps({'choices': [one]})}\n\n".encode()

    answer = accumulated(choice(1, "a") + choice(0, "b") + choice(1, "c"))
    first, second = answer.completion()["choices"]
    assert (answer.text, first["message"]["content"]) == ("b", "b")
    assert (second["index"], second["message"]["content"]) == (1, "ac")
    assert second["logprobs"] == {
        "content": [{"token": "a", "logprob": -0.5}, {"token": "c", "logprob": -0.5}]
    }


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"choices": 1}, "The answer's choices are 1, not objects."),
        ({"choices": [1]}, r"The answer's choices are \[1\], not objects."),
        ({"choices": [{"index": "a"}]}, "The index of a choice is 'a', not a number."),
        ({"choices": [{"delta": {"content": 1}}]}, "The answer's content is 1, not text."),
        ({"choices": [{"delta": {"tool_calls": [1]}}]}, "A tool call of the answer is 1, not an"),
        ({"choices": [{"delta": {"tool_calls": 1}}]}, "The tool calls of the answer are 1, not a"),
        (
            {"choices": [{"delta": {"tool_calls": [{"index": "a"}]}}]},
            "The index of a tool call is 'a', not a number.",
        ),
    ],
)
def test_events_that_are_none(broken: dict[str, Any], words: str) -> None:
    with pytest.raises(MalformedAnswer, match=words):
        ChatCompletionAccumulator().add(broken)


def test_a_whole_stream_of_each_engine() -> None:
    for kind in ("llamacpp", "ollama", "vllm"):
        assert accumulated(stream_of(kind=kind)).text == f"{ANSWER} "
