"""Every wait for a host has a deadline: tasks with modules of this project have limits."""

from __future__ import annotations

import configparser
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from action_plugins import model_fetch
from edge_host.constants import IMAGE_HOURS
from edge_host.release.activation import max_activation_seconds
from edge_host.release.store import Release

PROJECT = Path(__file__).resolve().parents[3]
MODULES = {path.stem for path in PROJECT.glob("library/*.py")}
FILES = sorted(
    path
    for pattern in ("site.yml", "playbooks/**/*.yml", "roles/*/tasks/*.yml", "roles/*/handlers/*")
    for path in PROJECT.glob(pattern)
)

SLEEPS = """#!/usr/bin/python
import os, signal
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({"pid": {"type": "path"}})
with open(module.params["pid"] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(file.name, module.params["pid"])
# Nobody else ends it where the test is stopped.
signal.alarm(120)
signal.pause()
"""
PLAY = """
- hosts: board
  gather_facts: false
  tasks:
    - name: Read the host
      sleeps: {pid: "{{ playbook_dir }}/pid"}
      timeout: 1
      no_log: HIDDEN
"""


def tasks(found: Any) -> list[dict[str, Any]]:
    """Whatever may be a task in a file: a mapping, wherever it is."""
    if isinstance(found, list):
        return [each for part in found for each in tasks(part)]
    if isinstance(found, dict):
        return [found, *(each for part in found.values() for each in tasks(part))]
    return []


def without_limit(text: str) -> list[str]:
    """The names of the tasks with a module of this project that have no limit."""
    return [
        str(task.get("name"))
        for task in tasks(yaml.safe_load(text))
        if MODULES & task.keys() and not task.get("timeout")
    ]


def template(expression: str, **variables: Any) -> int:
    found = yaml.safe_load((PROJECT / "roles/stack/vars/main.yml").read_text())
    limits = {name: trust_as_template(found[name]) for name in found if name.endswith("_limit")}
    templar = Templar(loader=DataLoader(), variables={**limits, **variables})
    return int(templar.template(trust_as_template(expression)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_tasks_with_modules_of_this_project_have_a_limit(path: Path) -> None:
    assert without_limit(path.read_text()) == []


def test_every_module_is_in_a_task_that_was_looked_at() -> None:
    used = {
        name for path in FILES for task in tasks(yaml.safe_load(path.read_text())) for name in task
    }
    assert used >= MODULES


def test_a_task_without_a_limit_is_found() -> None:
    text = (
        "- block: [{name: Read, host_info: {}}]\n"
        "  always: [{name: Store, model_store: {}, timeout: 0}]"
    )
    assert without_limit(text) == ["Read", "Store"]
    assert without_limit("- {name: Read, host_info: {}, timeout: 5}") == []


def test_all_other_tasks_have_the_limit_of_ansible_cfg() -> None:
    parser = configparser.ConfigParser()
    parser.read(PROJECT / "ansible.cfg")
    assert 0 < int(parser["defaults"]["task_timeout"]) <= 3600


@pytest.mark.parametrize(("start", "drain"), [(600, 120), (1, 0), (7200, 3600)])
def test_a_change_ends_by_its_own_limits_before_its_task(start: int, drain: int) -> None:
    """Ansible's limit is for hosts whose program does not end."""
    variables = {"stack_start_timeout": start, "stack_drain_timeout": drain}
    release = cast(Release, SimpleNamespace(start_timeout=start, drain_timeout=drain))
    units = template("{{ __stack_start_limit }}", **variables)
    change = template("{{ __stack_change_limit }}", **variables)
    # It waits for the recovery twice.
    assert units > 2 * 2 * max_activation_seconds(release)
    # A pull, the release, and the one before it again.
    assert change > IMAGE_HOURS * 3600 + 2 * max_activation_seconds(release)


def test_images_have_the_time_that_their_copies_have() -> None:
    found = {
        task["name"]: task["timeout"]
        for name in (
            "registry/tasks/mirror",
            "registry/tasks/distribute",
            "stack/tasks/build_image",
        )
        for task in tasks(yaml.safe_load((PROJECT / f"roles/{name}.yml").read_text()))
        if "timeout" in task
    }
    for name in ("Pull the images from the registry", "Run the registry", "Build the image"):
        assert found[name] > IMAGE_HOURS * 3600
    copies = found["Copy the missing images into the registry"]
    assert template(copies, registry_wanted=[1, 2]) > 2 * IMAGE_HOURS * 3600


def test_a_person_who_is_asked_has_all_the_time() -> None:
    """The limit of ansible.cfg is for machines; 0 is none."""
    asked = [
        task.get("timeout")
        for path in FILES
        for task in tasks(yaml.safe_load(path.read_text()))
        if "ansible.builtin.pause" in task and "prompt" in task["ansible.builtin.pause"]
    ]
    assert asked and set(asked) == {0}


@pytest.mark.parametrize(
    ("hidden", "outcome"),
    [
        ("false", "did not end within 1 s"),
        ("true", "failed, or did not end within its time limit"),
    ],
)
def test_a_host_that_never_ends_a_task_is_given_up_with_a_sentence(
    tmp_path: Path, hidden: str, outcome: str
) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/sleeps.py").write_text(SLEEPS)
    (tmp_path / "play.yml").write_text(PLAY.replace("HIDDEN", hidden))
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("ansible-playbook"), "play.yml", "-i", "board,"),
            *("-c", "local", "-e", json.dumps({"ansible_python_interpreter": sys.executable})),
        ],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    # Ansible leaves it running; under load it may not have begun.
    if (tmp_path / "pid").exists():
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert done.returncode == 2, done.stdout + done.stderr
    assert (
        f'board: the task "Read the host" {outcome}. Check the host (uptime, df, dmesg, journalctl'
        " -e), and run this again." in done.stderr.splitlines()
    )


def test_each_call_of_a_download_has_the_limit_of_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download may take a day; a host that does not end one look at it is given up before."""
    states = ["fetching", "fetching", "done"]
    alarms: list[int] = []
    monkeypatch.setattr(signal, "alarm", alarms.append)
    monkeypatch.setattr(
        model_fetch.ActionModule,
        "_execute_module",
        lambda *_, **__: {"download": {"state": states.pop(0)}},
    )
    job = {"name": "smoke", "files": [], "mode": "source"}
    task = Mock(args={"state": "finished", "job": job}, timeout=600, async_val=0, delegate_to=None)
    action = model_fetch.ActionModule(task, Mock(), Mock(), Mock(), Mock(), None)
    action._templar = Mock(template=lambda value: value)
    assert not action.run(task_vars={"inventory_hostname": "a"}).get("failed")
    assert states == [] and alarms == [600, 600, 600]
