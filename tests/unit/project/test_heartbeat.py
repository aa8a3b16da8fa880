"""A long task says that it is alive, and for whom it waits."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import Mock

import pytest

from callback_plugins import heartbeat


def named(**names: str) -> Mock:
    return Mock(**{f"{key}.return_value": value for key, value in names.items()})


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.05)
    callback = heartbeat.CallbackModule()
    callback._display = Mock()
    callback.v2_playbook_on_task_start(named(get_name="Install"), False)
    yield callback, callback._display.display
    callback.v2_playbook_on_stats(None)


def test_names_the_hosts_that_are_not_done(said: Any) -> None:
    callback, display = said
    for host in ("b", "a"):
        callback.v2_runner_on_start(named(get_name=host), None)
    time.sleep(0.2)
    assert "Install: 0 s, waiting for a, b" in display.call_args.args[0]
    callback.v2_runner_on_ok(Mock(_host=named(get_name="a")))
    time.sleep(0.2)
    assert display.call_args.args[0].endswith("waiting for b")


def test_is_silent_when_nothing_runs(said: Any) -> None:
    callback, display = said
    callback.v2_runner_on_start(named(get_name="a"), None)
    callback.v2_runner_on_failed(Mock(_host=named(get_name="a")), ignore_errors=False)
    display.reset_mock()
    time.sleep(0.2)
    assert not display.called
