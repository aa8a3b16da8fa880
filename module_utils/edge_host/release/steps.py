"""The steps of a change, and those of the activation of an earlier release."""

from __future__ import annotations

from enum import Enum


class Step(Enum):
    """A step of a change, in order. The values stand in the journal and in the history.

    A change leaves out the steps that it does not need.
    """

    BEGIN = "begin"
    CREATE_CONTAINERS = "create"
    LOAD_BESIDE = "load"
    VERIFY = "prove"
    HOLD_REQUESTS = "hold"
    DRAIN_REQUESTS = "drain"
    STOP_PREVIOUS = "stop"
    START_ENGINE = "start"
    WAIT_READY = "answer"
    SWITCH_UPSTREAM = "point"
    HAND_OVER_SOCKETS = "hand over"
    CHECK = "check"
    COMMIT = "commit"
    DRAIN_PREVIOUS = "leave"
    CLEAN = "clean"


class ActivationStep(Enum):
    """A step of the activation of an earlier release, in order, and the end of a recovery."""

    BEGIN = "activate"
    SWITCH_UPSTREAM = "activate: switch upstream"
    HAND_OVER_SOCKETS = "activate: hand over sockets"
    CLEAN = "activate: clean"
    END_RECOVERY = "end recovery"
