"""The table of routes in docs/chat-api.md is the code's."""

from __future__ import annotations

import re
from pathlib import Path

from llm_provider.providers.selection import PROVIDERS
from llm_provider.providers.settings import Task
from llm_provider.server.routes import ROUTES

TEXT = (Path(__file__).parents[3] / "docs/chat-api.md").read_text()
ROW = re.compile(r"^\| `(/[^`]+)` \| (yes|no) \| (yes|no) \| (yes|no) \| (.+) \|$", re.MULTILINE)


def test_routes_by_engine() -> None:
    told = {path: (tuple(engines), task) for path, *engines, task in ROW.findall(TEXT)}
    offered = {}
    for path, route in ROUTES.items():
        feature = route.feature
        tasks = [f"`{task.value}`" for task in feature.tasks]
        engines = tuple("yes" if name in feature.paths else "no" for name in PROVIDERS)
        offered[path] = engines, "any" if len(tasks) == len(Task) else ", ".join(tasks)
    assert told == offered


def test_every_route_is_told_of() -> None:
    for path in ROUTES:
        assert f"`{path}`" in TEXT
