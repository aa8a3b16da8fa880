"""Control characters of a host do not reach the terminal, in whatever Ansible prints of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\x1b[0;32mok\x1b[0m\u202etxt.exe"
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f]"
)
COLOUR = re.compile("\x1b\\[[0-9;]+m")

MODULE = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(
    {"outcome": {"type": "str"}, "text": {"type": "str"}}, supports_check_mode=True
)
text = module.params["text"]
if module.params["outcome"] == "failed":
    module.fail_json(msg=text)
module.warn(text)
module.deprecate(text, version="9.9", collection_name="ansible.builtin")
module.exit_json(changed=True, msg=text, text=text, diff={"before": text, "after": text + "2"})
"""

PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: Fail
      hostile: {outcome: failed, text: "{{ hostile }}"}
      ignore_errors: true
    - name: Change
      hostile: {outcome: changed, text: "{{ hostile }}"}
      register: answer
    - name: Show
      ansible.builtin.debug:
        msg: ["{{ answer.text }}", "a line\\n{{ answer.text }}\\tend"]
    - name: Show the variable
      ansible.builtin.debug:
        var: answer
    - name: Name of {{ answer.text }}
      ansible.builtin.debug:
        msg: named
    - name: Try
      block:
        - name: Fail again
          hostile: {outcome: failed, text: "{{ hostile }}"}
          register: failure
      rescue:
        - name: Refuse the host
          ansible.builtin.fail:
            msg: "The host said {{ failure.msg }}"
"""


def run(folder: Path, *arguments: str, **environment: str) -> str:
    """What ansible-playbook prints for PLAY with the project's ansible.cfg."""
    (folder / "library").mkdir(exist_ok=True)
    (folder / "library/hostile.py").write_text(MODULE)
    (folder / "play.yml").write_text(PLAY)
    variables = {"hostile": HOSTILE, "ansible_python_interpreter": sys.executable}
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("ansible-playbook"), "play.yml", "--diff"),
            *("-i", "localhost,", "-c", "local", *arguments, "-e", json.dumps(variables)),
        ],
        cwd=folder,
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("verbosity", ["", "-vvv"])
def test_no_control_character_is_printed(tmp_path: Path, verbosity: str) -> None:
    printed = run(tmp_path, *([verbosity] if verbosity else []), ANSIBLE_NOCOLOR="1")
    assert not CONTROLS.findall(printed), printed
    # Failures, warnings, differences, tables and names of tasks are there, in words.
    assert "Module failed: \\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\x1b[0;32mok" in printed
    assert "The host said \\x1b]0;owned\\x07" in printed
    assert re.search(r"\[WARNING\]: \\x1b\]0;owned", printed)
    assert re.search(r"\[DEPRECATION WARNING\]: \\x1b\]0;owned", printed)
    assert "+\\x1b]0;owned" in printed and "TASK [Name of \\x1b]0;owned" in printed
    assert "\\u202etxt.exe2" in printed


def test_ansible_alone_prints_them(tmp_path: Path) -> None:
    """The control: without the plugin the terminal gets what the host said."""
    printed = run(tmp_path, ANSIBLE_NOCOLOR="1", ANSIBLE_CALLBACKS_ENABLED="heartbeat")
    assert {"\x1b", "\x07", "\x9b", "\u202e"} <= set(CONTROLS.findall(printed))


def test_colours_of_ansible_stay_and_those_of_a_host_do_not(tmp_path: Path) -> None:
    printed = run(tmp_path, ANSIBLE_FORCE_COLOR="1")
    assert not CONTROLS.findall(COLOUR.sub("", printed))
    green, red, end = "\x1b[0;32m", "\x1b[0;31m", "\x1b[0m"
    # A part of a line (the summary, a difference), and whole lines.
    assert re.search(re.escape(red) + "localhost" + re.escape(end) + " +: ", printed)
    assert f"{green}+\\x1b]0;owned" in printed
    assert f"{red}[ERROR]: Task failed" in printed
    # The host's green is text.
    assert f"{green}ok{end}" not in printed and "\\x1b[0;32mok\\x1b[0m" in printed
