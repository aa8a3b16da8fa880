"""A streamed answer, and when its pieces arrived."""

from __future__ import annotations

import pytest

from llm_provider.cli.timed_answer import TimedAnswer, rate

from ..fake import ANSWER, delta_event, event, stream_of


def test_an_answer_in_pieces() -> None:
    raw = stream_of(kind="vllm", usage=True)
    answer = TimedAnswer()
    for start in range(0, len(raw), 7):
        answer.feed(raw[start : start + 7], float(start))
    assert answer.text.strip() == ANSWER
    assert answer.tokens == len(ANSWER.split()) == len(answer.times)
    assert (answer.finish_reason, answer.model) == ("stop", "smoke")
    assert answer.times == sorted(answer.times)
    assert answer.tokens_per_second is not None


def test_reasoning_counts() -> None:
    answer = TimedAnswer()
    answer.feed(delta_event({"reasoning": "Well"}), 1.0)
    answer.feed(event("Yes") + event(finish_reason="stop"), 2.0)
    assert (answer.times, answer.tokens, answer.tokens_per_second) == ([1.0, 2.0], 2, 1.0)


@pytest.mark.parametrize(
    ("tokens", "times", "pace"),
    [
        (5, [1.0, 1.5, 2.0, 2.5, 3.0], 2.0),
        (4, [1.0, 1.0, 2.0, 2.0], 2.0),  # two at first: only the two after them took time
        (10, [1.0, 2.0], 5.0),  # usage tells of more tokens than there were pieces
        (3, [1.0, 1.0, 1.0], None),
        (0, [], None),
    ],
)
def test_rate(tokens: int, times: list[float], pace: float | None) -> None:
    assert rate(tokens, times) == pace
