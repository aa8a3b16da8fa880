"""Whether a release is the requested one: a rule of the control machine and of a change."""

from __future__ import annotations

from typing import Any

import pytest

from edge_host.release_record import hash_text, is_requested

FILES = {"docker-compose.yml": "image: @ENGINE_SLOT@\n", ".env": "CTX_SIZE=4096\n"}
RENDERED = {name: hash_text(text) for name, text in FILES.items()}
WRITTEN = {"docker-compose.yml": hash_text("image: a\n"), ".env": RENDERED[".env"]}
RECORD = {"rendered": RENDERED, "written": WRITTEN, "plan": {"model": {"digest": "d1"}}}


@pytest.mark.parametrize(
    ("record", "asked"),
    [
        ({}, True),
        ({"plan": {"model": {"digest": "d2"}}}, False),
        # As an earlier version recorded it.
        ({"plan": {"model": {}}}, False),
        ({"rendered": RENDERED | {".env": hash_text("CTX_SIZE=2048\n")}}, False),
        ({"rendered": RENDERED | {"engine.env": hash_text("")}}, False),
    ],
)
def test_what_is_recorded_and_requested(record: dict[str, Any], asked: bool) -> None:
    assert is_requested(RECORD | record, FILES, "d1", dict(WRITTEN)) is asked


@pytest.mark.parametrize("sha256", [hash_text("CTX_SIZE=1\n"), None])
def test_a_file_that_was_edited_or_removed(sha256: str | None) -> None:
    assert not is_requested(RECORD, FILES, "d1", WRITTEN | {".env": sha256})
