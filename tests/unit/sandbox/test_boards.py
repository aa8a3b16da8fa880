"""What a simulated board gets of this machine."""

from __future__ import annotations

import pytest

from sandbox.boards import cpus_of


@pytest.mark.parametrize(
    ("name", "machine", "cpus"),
    [
        ("jetson-01", {0, 1}, "0"),
        ("pi-01", {0, 1}, "1"),
        ("jetson-01", {0, 1, 2, 3, 4}, "0,1"),
        ("pi-01", {2, 3, 6, 7}, "6,7"),
        ("pi-01", {0}, None),
        ("bare-01", {0, 1}, None),
    ],
)
def test_boards_that_serve_share_the_cpus_out(
    name: str, machine: set[int], cpus: str | None
) -> None:
    assert cpus_of(name, machine) == cpus
