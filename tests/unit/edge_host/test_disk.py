"""The space on a disk, and the message where it is not enough."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_host.constants import DISK_RESERVE, MIB
from edge_host.disk import describe_shortage, free_space


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> int:
    """The bytes of a disk beside its reserve."""
    blocks = (DISK_RESERVE + 100 * MIB) // 4096
    status = SimpleNamespace(f_bavail=blocks, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: status)
    return 100 * MIB


def test_what_fits(free: int) -> None:
    assert free_space(Path("/m")) == free
    assert describe_shortage(Path("/m"), free, "downloaded") == ""


def test_what_does_not_fit(free: int) -> None:
    assert describe_shortage(Path("/m"), free + 5 * MIB, "downloaded") == (
        "the disk of /m is too small: 105 MiB are still to be downloaded, and 100 MiB are free"
        " beside the reserve of 512 MiB"
    )


def test_less_than_the_reserve_is_nothing(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1, f_frsize=4096))
    assert free_space(Path("/m")) == 0
    assert describe_shortage(Path("/m"), 0, "copied") == ""
    assert describe_shortage(Path("/m"), 1, "copied")
