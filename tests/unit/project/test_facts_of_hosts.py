"""What a host says of itself is validated before anything of it is used or printed.

The hosts are this machine by two names: `bad` is one that somebody else has in their hands.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.edge_fleet.conftest import JETSON, change

ROOT = Path(__file__).parents[3]
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"
_MODULE = """\
#!/usr/bin/python
import json, os
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(argument_spec={}, supports_check_mode=True)
module.params
module.exit_json(changed=%s, **json.load(open(%r))[os.environ["WHO"]])
"""
_SENTENCE = (
    r"board.tools is invalid in the facts of the host: '\x1b]0;owned\x07\x1b[2J\u202e', where a"
    " list is expected. Look for the cause on the host"
)


def play(
    folder: Path,
    results: dict[str, Any],
    tasks: list[dict[str, Any]],
    module: str = "host_info",
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run tasks over `good` and `bad`, whose module of that name returns these results."""
    (folder / "results.json").write_text(json.dumps(results))
    text = _MODULE % (module == "release", str(folder / "results.json"))
    options = "{name: {'type': 'raw'} for name in ('root', 'secrets', 'program', 'host')}"
    (folder / f"{module}.py").write_text(text.replace("argument_spec={}", options))
    play = {
        "hosts": "all",
        "gather_facts": False,
        "environment": {"WHO": "{{ inventory_hostname }}"},
        "tasks": tasks,
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    # Files of the control machine are kept beside the inventory.
    (folder / "hosts").write_text("good\nbad\n")
    return subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"), folder / "play.yml",
            "-i", folder / "hosts", "-c", "local",
            "-e", f"ansible_python_interpreter={sys.executable}",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LIBRARY": str(folder),
            "ANSIBLE_NOCOLOR": "1",
            **environment,
        },
    )  # fmt: skip


def words(done: subprocess.CompletedProcess[str]) -> str:
    said = done.stdout + done.stderr
    assert said.replace("\n", "").isprintable(), said
    return " ".join(said.split()).replace("''", "'")


def test_a_wrong_fact_refuses_its_host_alone(tmp_path: Path) -> None:
    """The role's own tasks; the facts of the other host are set, whatever they are."""
    hostile = change(JETSON, "board.tools", HOSTILE) | {"new": HOSTILE}
    done = play(
        tmp_path,
        {"good": {"state": JETSON}, "bad": {"state": hostile}},
        [
            {
                "include_role": {"name": "preflight", "tasks_from": "gather"},
                "vars": {"preflight_secrets": {}, "preflight_root": str(tmp_path)},
            },
            {"debug": {"msg": "{{ inventory_hostname }} has {{ preflight_state.board.tools }}"}},
        ],
    )
    said = words(done)
    assert done.returncode == 2, said
    assert f"bad: the host could not be read: {_SENTENCE}" in said
    assert "good has ['curl']" in said
    assert "bad has" not in said


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize("injected", [True, False])
def test_a_host_sets_no_variable(tmp_path: Path, injected: bool, filtered: bool) -> None:
    """Two things prevent it, each alone: without both, the host chooses what file is written."""
    # Not in each other: the folder of the play is one of modules, with what is below it.
    folder, actions = tmp_path / "play", tmp_path / "actions"
    folder.mkdir()
    actions.mkdir()
    chosen = tmp_path / "chosen.json"
    for path in (ROOT / "action_plugins").glob("*.py"):
        if filtered or path.stem != "host_info":
            (actions / path.name).symlink_to(path)
    facts = {"board_facts_file": str(chosen)}
    environment = {"ANSIBLE_INJECT_FACT_VARS": "true"} if injected else {}
    done = play(
        folder,
        {"good": {"state": JETSON}, "bad": {"state": JETSON, "ansible_facts": facts}},
        [
            {
                "include_role": {"name": "preflight", "tasks_from": "gather", "public": True},
                "vars": {"preflight_secrets": {}, "preflight_root": str(tmp_path)},
            },
            {"control_files": {"files": ["{{ __preflight_facts }}"]}},
            {"debug": {"msg": "{{ inventory_hostname }} has {{ ansible_facts }}."}},
        ],
        ANSIBLE_ACTION_PLUGINS=str(actions),
        **environment,
    )
    said = words(done)
    assert done.returncode == 0, said
    assert chosen.exists() is (injected and not filtered)
    assert (folder / ".facts/bad.json").exists() is not chosen.exists()
    assert (folder / ".facts/good.json").exists()
    assert ("bad has {}." in said) is filtered


def test_the_history_of_one_host_does_not_end_that_of_others(tmp_path: Path) -> None:
    entry = {"at": "2026", "to": 7, "outcome": "committed", "seconds": "x"}
    results = {
        "good": {"state": change(JETSON, "deployment.history", [entry | {"seconds": 2.0}])},
        "bad": {"state": change(JETSON, "deployment.history", [entry])},
    }
    read = {"host_info": {}, "register": "history_read"}
    show = "{{ ansible_play_hosts | map('extract', hostvars) | edge_llm_history }}"
    done = play(tmp_path, results, [read, {"debug": {"msg": show}, "run_once": True}])
    said = words(done)
    assert "deployment.history.0.seconds is invalid in the facts of the host: 'x', where" in said
    assert "good 2026 7 - - - 2.0 s - committed -" in said


def test_the_result_of_a_change(tmp_path: Path) -> None:
    result = {
        "from": 6, "to": 7, "changed_parts": [], "side_by_side": True, "pause_seconds": 0.1,
        "seconds": 2.0,
    }  # fmt: skip
    show = "{{ inventory_hostname }}: {{ stack_change.result | edge_llm_change }}"
    done = play(
        tmp_path,
        {"good": {"result": result}, "bad": {"result": result | {"seconds": HOSTILE}}},
        [
            {"release": {"host": "{{ inventory_hostname }}"}, "register": "stack_change"},
            {"debug": {"msg": show}},
        ],
        "release",
    )
    said = words(done)
    assert (
        r"bad: seconds is invalid in the result of the change: '\x1b]0;owned\x07\x1b[2J\u202e',"
        " where a valid number is expected." in said
    )
    assert "good: release 7 in 2.0 s" in said


def test_facts_in_a_file(tmp_path: Path) -> None:
    """`make plan` reads them: those of an earlier version may lack some."""
    facts = change(JETSON, "board.memory_total", None)
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"), "-i", "kitchen,",
            "-e", f"board_facts_file={tmp_path}/facts.json", "playbooks/plan.yml",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
    )  # fmt: skip
    said = words(done)
    assert done.returncode == 2, said
    assert (
        f"kitchen: {tmp_path}/facts.json does not fit: board.memory_total is invalid in the facts"
        " of the host: null, where a valid integer is expected." in said
    )
    assert "`ansible-playbook -i INVENTORY site.yml --check` gathers the facts again." in said
