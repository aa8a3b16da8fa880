"""The sandbox as it is without settings: those of the whole test run are not these tests'."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SANDBOX_CPU", "SANDBOX_IMAGES"):
        monkeypatch.delenv(name, raising=False)
