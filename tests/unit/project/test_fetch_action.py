"""What is said while weights come, and where this machine is for others."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from action_plugins.model_fetch import duration, ended, mib, own_address, progress

MIB = 1024**2


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0.0 MiB"),
        (1, "0.0 MiB"),
        (MIB, "1.0 MiB"),
        (1.55 * MIB, "1.6 MiB"),
        (9.94 * MIB, "9.9 MiB"),
        (10 * MIB, "10 MiB"),
        (93.8 * MIB, "94 MiB"),
        (8988110976, "8,572 MiB"),
    ],
)
def test_mib(size: float, said: str) -> None:
    assert mib(size) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.6, "1 s"),
        (59.4, "59 s"),
        (99, "99 s"),
        (100, "2 min"),
        (90 * 60 - 1, "90 min"),
        (90 * 60, "1.5 h"),
        (1000 * 3600, "1000.0 h"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("told", "line"),
    [
        # As the program tells it first, before it knows anything.
        ({"state": "begun"}, "pi: smoke.gguf-1 begins"),
        ({"state": "asking", "size": 100 * MIB}, "pi: smoke.gguf-1 asks, 0 % of 100 MiB"),
        (
            {"state": "fetching", "done": 0, "size": 100 * MIB, "rate": 0, "left": None},
            "pi: smoke.gguf-1 comes, 0 % of 100 MiB",
        ),
        (
            {
                "state": "fetching",
                "done": 99 * MIB,
                "size": 100 * MIB,
                "rate": 5 * MIB,
                "left": 0,
                "from": ["hub.example"],
            },
            "pi: smoke.gguf-1 comes, 99 % of 100 MiB, 5.0 MiB/s, 0 s left, from hub.example",
        ),
        # Less than the whole is never said to be all of it.
        (
            {"state": "receiving", "done": 100 * MIB - 1, "size": 100 * MIB},
            "pi: smoke.gguf-1 comes, 99 % of 100 MiB",
        ),
        (
            {
                "state": "receiving",
                "done": 50 * MIB,
                "size": 100 * MIB,
                "rate": 100 * 1024,
                "left": 512,
                "from": ["the fleet", "hub.example"],
                "peers": 3,
            },
            "pi: smoke.gguf-1 comes, 50 % of 100 MiB, 0.1 MiB/s, 9 min left, from the fleet and"
            " hub.example",
        ),
        # Reading what has come is no speed of the line, and comes from nobody.
        (
            {
                "state": "verifying",
                "done": 80 * MIB,
                "size": 100 * MIB,
                "rate": 400 * MIB,
                "left": 1,
                "from": ["hub.example"],
            },
            "pi: smoke.gguf-1 is verified, 80 % of 100 MiB",
        ),
        (
            {"state": "thinking", "size": 0, "from": ["hub.example"]},
            "pi: smoke.gguf-1 thinking",
        ),
    ],
)
def test_progress(told: dict[str, Any], line: str) -> None:
    assert progress("pi", {"name": "smoke.gguf-1"} | told) == line


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (
            {"size": 93.8 * MIB, "seconds": 12.3, "from": ["hub.example"]},
            "pi: smoke.gguf-1 is there: 94 MiB in 12 s, from hub.example",
        ),
        (
            {"size": 5 * MIB, "seconds": 600, "from": ["the fleet", "hub.example"]},
            "pi: smoke.gguf-1 is there: 5.0 MiB in 10 min, from the fleet and hub.example",
        ),
        (
            {"size": 5 * MIB, "seconds": 0.4, "from": []},
            "pi: smoke.gguf-1 is there: 5.0 MiB in 0 s",
        ),
        ({}, "pi: smoke.gguf-1 is there: 0.0 MiB in 0 s"),
    ],
)
def test_ended(told: dict[str, Any], line: str) -> None:
    assert ended("pi", {"name": "smoke.gguf-1", "state": "done"} | told) == line


def test_own_address_on_the_loopback() -> None:
    assert own_address("127.0.0.1") == "127.0.0.1"
    assert own_address("localhost") in ("127.0.0.1", "::1")


def test_own_address_by_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert own_address("::1") == "::1"


@pytest.mark.parametrize("peer", ["no-such-host.invalid", ""])
def test_no_own_address_where_a_name_does_not_resolve(peer: str) -> None:
    assert own_address(peer) is None
