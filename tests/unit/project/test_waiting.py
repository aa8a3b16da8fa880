"""The wait that all tests share: it ends with a state, or reports the last one."""

from __future__ import annotations

import functools
import itertools

import pytest

from tests.waiting import until, until_async

quickly = functools.partial(until, seconds=0.05, every=0.01)


def test_the_wait_ends_with_the_state_that_was_wanted() -> None:
    counter = itertools.count()
    assert until(lambda: next(counter), "three", lambda n: n == 3, every=0.001) == 3
    assert until(lambda: "there", "a text") == "there"


async def test_the_event_loop_goes_on_meanwhile() -> None:
    counter = itertools.count()
    assert await until_async(lambda: next(counter), "three", lambda n: n == 3, every=0.001) == 3
    with pytest.raises(AssertionError, match=r"Waited 0.05 s for more.*: {'ready': False}"):
        await until_async(
            lambda: {"ready": False}, "more", lambda s: s["ready"], seconds=0.05, every=0.01
        )


def test_a_wait_that_is_given_up_reports_the_last_state() -> None:
    with pytest.raises(
        AssertionError, match=r"^Waited 0.05 s for readiness\. The last state was: {'ready': False}"
    ):
        quickly(lambda: {"ready": False}, "readiness", lambda state: state["ready"])


def test_exceptions_are_states_where_they_are_named() -> None:
    looks = itertools.count()

    def look() -> str:
        if next(looks) == 0:
            raise OSError("refused")
        return "here"

    assert until(look, "an answer", every=0.001, ignored=(OSError,)) == "here"

    def refuse() -> str:
        raise OSError("refused")

    with pytest.raises(AssertionError, match="The last state was: OSError: refused"):
        quickly(refuse, "an answer", ignored=(OSError,))
    with pytest.raises(OSError, match="refused"):
        quickly(refuse, "an answer")
    with pytest.raises(OSError, match="refused"):
        quickly(refuse, "an answer", ignored=(ValueError,))
