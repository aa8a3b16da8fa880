"""Token buckets, with a clock that the tests set."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_provider.server.rate_limit import Rate, RateLimiter, TokenBucket, retry_after


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(Rate(60, 3), clock)
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]
    assert bucket.take() == pytest.approx(1.0)
    clock.now += 0.4
    assert bucket.take() == pytest.approx(0.6)
    clock.now += 0.6
    assert bucket.take() == 0
    assert bucket.take() == pytest.approx(1.0)


def test_waiting_as_told_is_enough() -> None:
    clock = Clock()
    bucket = TokenBucket(Rate(7, 1), clock)
    for _ in range(50):
        assert bucket.take() == 0
        wait = bucket.take()
        assert wait == pytest.approx(60 / 7)
        clock.now += wait


def test_a_bucket_holds_no_more_than_its_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(Rate(60, 2), clock)
    clock.now += 3600
    assert [bucket.take() == 0 for _ in range(3)] == [True, True, False]


def test_a_clock_that_goes_back_takes_nothing() -> None:
    clock = Clock()
    bucket = TokenBucket(Rate(60, 2), clock)
    bucket.take()
    clock.now -= 500
    assert bucket.take() == 0
    clock.now += 1
    assert bucket.take() == 0


def test_a_token_can_be_given_back() -> None:
    bucket = TokenBucket(Rate(1, 1), Clock())
    bucket.give_back()
    assert bucket.take() == 0
    assert bucket.take() > 0
    bucket.give_back()
    assert bucket.take() == 0


def test_keys_have_buckets_of_their_own() -> None:
    limiter = RateLimiter(Clock())
    rate = Rate(1, 1)
    assert limiter.take("a", rate) == 0
    assert limiter.take("a", rate) == pytest.approx(60)
    assert limiter.take("b", rate) == 0
    assert limiter.take("c", None) == 0
    assert len(limiter) == 2


def test_a_changed_rate_counts_at_once_and_gives_nothing_away() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    limiter.take("a", Rate(1, 1))
    assert limiter.take("a", Rate(60, 5)) == pytest.approx(1.0), "an empty bucket stays empty"
    clock.now += 2
    assert [limiter.take("a", Rate(60, 5)) == 0 for _ in range(3)] == [True, True, False]
    limiter.give_back("a")
    assert limiter.take("a", Rate(60, 5)) == 0


def test_the_number_of_buckets_is_bounded() -> None:
    limiter = RateLimiter(Clock(), most=3)
    rate = Rate(1, 1)
    for key in "abc":
        limiter.take(key, rate)
    assert limiter.take("a", rate) > 0  # used last now
    for number in range(100):
        limiter.take(number, rate)
        assert limiter.take("a", rate) > 0, "the one in use is not forgotten"
        assert len(limiter) <= 3
    assert limiter.take("b", rate) == 0


@pytest.mark.parametrize(
    ("per_minute", "burst"), [(0, 1), (-1, 1), (math.nan, 1), (math.inf, 1), (1, 0)]
)
def test_a_rate_must_be_possible(per_minute: float, burst: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        Rate(per_minute, burst)


def test_retry_after_is_whole_seconds() -> None:
    assert [retry_after(seconds) for seconds in (0.01, 1, 1.01, 59.5)] == ["1", "1", "2", "60"]


@given(
    st.floats(0.5, 600),
    st.integers(1, 20),
    st.lists(st.floats(0, 30), min_size=1, max_size=80),
)
def test_never_more_than_burst_and_rate(per_minute: float, burst: int, pauses: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket(Rate(per_minute, burst), clock)
    started, taken = clock.now, 0
    for pause in pauses:
        clock.now += pause
        taken += bucket.take() == 0
        assert taken <= burst + (clock.now - started) * per_minute / 60 + 1e-6
