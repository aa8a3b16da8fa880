"""The registry role as a run has it: in which order hosts do what, and what happens to failures.

The hosts are this machine by four names: `a` keeps the images, `d` has them. Modules and commands
that would change a host are stood in for, and write down what they were asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
IMAGE = "192.0.2.1:5000/docker.io/a/b@sha256:aa"
_MODULE = """\
#!/usr/bin/python
import json, os
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({{name: {{"type": "raw"}} for name in {options}}}, supports_check_mode=True)
with open({log!r}, "a") as log:
    log.write(json.dumps([os.environ["WHO"], {name!r}, module.params]) + "\\n")
if os.environ["FAILING"] == {name!r}:
    module.fail_json(msg="{name} failed")
module.exit_json(changed=True, path="/program.pyz")
"""
_OPTIONS = {
    "registry_port": ["state", "program", "socket", "hosts", "seconds"],
    "image_mirror": ["socket", "staging", "user", "images", "insecure"],
    "host_program": ["folder", "owner"],
    "docker_compose_v2": ["project_src", "state", "recreate", "remove_orphans"],
    # As root these would give folders to the registry's user.
    "host_folders": ["root", "of"],
    "file": ["path", "state", "owner", "group", "mode"],
    "template": ["src", "dest", "owner", "group", "mode"],
}
_DOCKER = """\
#!/bin/sh
echo "[\\"$WHO\\", \\"docker $1\\", {{}}]" >> {log}
[ "$FAILING" != pull ] || {{ echo "connection refused" >&2; exit 1; }}
"""


class Run:
    """A run of the role: `asked` has (host, what) in their order, `said` what Ansible printed."""

    def __init__(self, folder: Path, *options: str, failing: str = "", at: str = "a") -> None:
        self.log = folder / "log"
        self.log.write_text("")
        for name, known in _OPTIONS.items():
            modules = folder / "library"
            if name == "docker_compose_v2":
                modules = folder / "ansible_collections/community/docker/plugins/modules"
            modules.mkdir(parents=True, exist_ok=True)
            text = _MODULE.format(name=name, options=known, log=str(self.log))
            (modules / f"{name}.py").write_text(text)
        (folder / "bin").mkdir()
        (folder / "bin/docker").write_text(_DOCKER.format(log=self.log))
        (folder / "bin/docker").chmod(0o755)
        playbook = folder / "play.yml"
        playbook.write_text(json.dumps([self._play(folder, failing, at)]))
        hosts = "\n".join(f"{name} ansible_host=192.0.2.{n}" for n, name in enumerate("abcd", 1))
        (folder / "hosts").write_text(hosts + "\n")
        done = subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                *("-i", str(folder / "hosts"), "-c", "local"),
                *("-e", f"ansible_python_interpreter={sys.executable}"),
                *options, str(playbook),
            ],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(folder),
                "ANSIBLE_LIBRARY": str(folder / "library"),
                "ANSIBLE_ACTION_PLUGINS": str(folder / "none"),
            },
        )  # fmt: skip
        self.said = " ".join(done.stdout.split()).replace("''", "'")
        self.code = done.returncode
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        self.asked = [(who, _what(name, given)) for who, name, given in lines]
        self.given = {(who, _what(name, given)): given for who, name, given in lines}

    @staticmethod
    def _play(folder: Path, failing: str, at: str) -> dict[str, Any]:
        plan = {
            "problems": [],
            "images": {"cache": "a", "registry": "r@sha256:1", "outside": {IMAGE: "a/b@sha256:aa"}},
        }
        state = {
            "docker": {"compose": "2", "published_registry": False},
            "board": {"tools": ["skopeo"]},
            "deployment": {"release": None},
        }
        images = f"{{{{ ['{IMAGE}'] if inventory_hostname == 'd' else [] }}}}"
        facts: dict[str, Any] = {"preflight_plan": plan, "preflight_state": state}
        facts["preflight_state"]["deployment"]["images"] = images
        return {
            "hosts": "all",
            "gather_facts": False,
            "environment": {
                "WHO": "{{ inventory_hostname }}",
                "PATH": f"{folder}/bin:{os.environ['PATH']}",
                "FAILING": f"{{{{ '{failing}' if inventory_hostname == '{at}' else '' }}}}",
            },
            "vars": {"preflight_root": str(folder), "registry_root": str(folder / "registry")},
            "tasks": [
                {"ansible.builtin.set_fact": facts},
                {"ansible.builtin.import_role": {"name": "registry"}},
            ],
        }


def _what(name: str, given: dict[str, Any]) -> str:
    return f"{name} {given['state']}" if given.get("state") else name


def relevant(run: Run) -> list[tuple[str, str]]:
    kept = ("registry_port", "image_mirror", "docker")
    return [each for each in run.asked if each[1].startswith(kept)]


def test_the_port_is_open_while_hosts_pull(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.code == 0, run.said
    *begun, first, second, third, close, stop = relevant(run)
    assert begun == [
        ("a", "docker_compose_v2"),
        ("a", "image_mirror"),
        ("a", "registry_port open"),
    ]
    assert sorted([first, second, third]) == [(host, "docker pull") for host in "abc"]
    assert [close, stop] == [("a", "registry_port closed"), ("a", "docker_compose_v2 stopped")]
    # d lacks nothing.
    assert run.given["a", "registry_port open"]["hosts"] == [f"192.0.2.{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("host", ["a", "b"])
def test_a_pull_that_fails_closes_the_port_all_the_same(tmp_path: Path, host: str) -> None:
    run = Run(tmp_path, failing="pull", at=host)
    assert run.code == 2
    assert (
        f"{host}: the image {IMAGE} could not be pulled from the registry on a: connection refused."
        " `journalctl -u edge-llm-registry` on a names" in run.said
    )
    assert sorted(each for each in run.asked if each[1] == "docker pull") == [
        (each, "docker pull") for each in "abc"
    ]
    assert relevant(run)[-2:] == [
        ("a", "registry_port closed"),
        ("a", "docker_compose_v2 stopped"),
    ]


@pytest.mark.parametrize("failing", ["image_mirror", "registry_port"])
def test_nobody_pulls_from_a_registry_that_is_not_open(tmp_path: Path, failing: str) -> None:
    run = Run(tmp_path, failing=failing)
    assert run.code == 2
    assert not [each for each in run.asked if each[1] == "docker pull"]
    # It is closed; a module that fails at that, too, keeps the containers running.
    assert ("a", "registry_port closed") in run.asked
    assert (("a", "docker_compose_v2 stopped") in run.asked) == (failing == "image_mirror")
    for host in "bc":
        assert (
            f"{host}: the images of the plan are missing on the host: they come from the registry"
            " on a, which is not open, since that host has failed or is not part of this run. Run"
            f" this again with both hosts (--limit a,{host})." in run.said
        )


def test_a_registry_that_is_not_in_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, "--limit", "b,d")
    assert run.code == 2
    assert "b: the images of the plan are missing on the host: they come from" in run.said
    assert run.asked == []


def test_hosts_that_lack_nothing_are_left_alone(tmp_path: Path) -> None:
    run = Run(tmp_path, "--limit", "d")
    assert run.code == 0, run.said
    assert run.asked == []


def test_a_check_run_names_the_images(tmp_path: Path) -> None:
    run = Run(tmp_path, "--check")
    assert run.code == 0, run.said
    assert "Would copy a/b@sha256:aa into the registry." in run.said
    assert run.asked == []
