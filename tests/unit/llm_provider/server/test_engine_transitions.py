"""The engine's state machine by itself: each transition, and what an observer hears."""

from __future__ import annotations

import pytest

from llm_provider import LLMProvider
from llm_provider.errors import EngineUnreachableError
from llm_provider.providers.base import Capacity
from llm_provider.server.engine_state import EngineState, State

from .queue_stub import Stub


class Recorder:
    """Counts what it hears."""

    def __init__(self) -> None:
        self.changes = 0
        self.former: list[LLMProvider] = []

    def engine_changed(self) -> None:
        self.changes += 1

    def engine_switched(self, former: LLMProvider) -> None:
        self.former.append(former)


async def reached(state: State) -> tuple[EngineState, Stub]:
    """An engine in a state."""
    stub = Stub()
    engine = EngineState(stub, 1)
    if state is State.READY:
        await engine.probe()
    elif state is State.ABANDONED:
        engine.abandon()
    assert engine.state is state
    return engine, stub


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (State.NOT_READY, "ready", State.READY),
        (State.NOT_READY, "lost", State.NOT_READY),
        (State.NOT_READY, "abandon", State.ABANDONED),
        (State.NOT_READY, "switch", State.NOT_READY),
        (State.NOT_READY, "hold", State.NOT_READY),
        (State.READY, "lost", State.NOT_READY),
        (State.READY, "abandon", State.READY),
        (State.READY, "switch", State.NOT_READY),
        (State.READY, "hold", State.READY),
        (State.ABANDONED, "ready", State.READY),
        (State.ABANDONED, "lost", State.ABANDONED),
        (State.ABANDONED, "switch", State.NOT_READY),
        (State.ABANDONED, "hold", State.NOT_READY),
    ],
)
async def test_transitions(before: State, event: str, after: State) -> None:
    engine, stub = await reached(before)
    heard = Recorder()
    engine.observe(heard)
    match event:
        case "ready":
            assert await engine.probe()
        case "lost":
            stub.problem = EngineUnreachableError("gone")
            assert not await engine.probe()
        case "abandon":
            engine.abandon()
        case "hold":
            engine.hold("It is changed.")
        case "switch":
            engine.switch(Stub("other"), 2)
            assert heard.former == [stub]
            assert (engine.provider.model, engine.parallel) == ("other", 2)
            assert engine.capacity == Capacity()
    assert engine.state is after
    assert heard.changes == 1
    assert engine.open is (after is State.READY and event != "hold")


@pytest.mark.parametrize("state", State)
async def test_a_hold_shuts_whatever_the_state_is(state: State) -> None:
    engine, _ = await reached(state)
    engine.hold("It is changed.", 30)
    assert (engine.open, engine.on_hold, engine.hold_seconds) == (False, True, 30)
    assert engine.waiting_for == "It is changed."
    engine.release()
    assert engine.on_hold is False
    assert engine.open is (state is State.READY)
