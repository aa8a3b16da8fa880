from __future__ import annotations

import pytest

from edge_host.sizes import format_mib, format_size

MIB = 1024**2


@pytest.mark.parametrize(
    ("size", "moved", "whole"),
    [
        (0, "0.0 MiB", "0 MiB"),
        (1, "0.0 MiB", "0 MiB"),
        (MIB, "1.0 MiB", "1 MiB"),
        (1.55 * MIB, "1.6 MiB", "2 MiB"),
        (9.94 * MIB, "9.9 MiB", "10 MiB"),
        (10 * MIB, "10 MiB", "10 MiB"),
        (93.8 * MIB, "94 MiB", "94 MiB"),
        (8988110976, "8,572 MiB", "8,572 MiB"),
    ],
)
def test_sizes_in_mib(size: float, moved: str, whole: str) -> None:
    assert (format_size(size), format_mib(size)) == (moved, whole)
