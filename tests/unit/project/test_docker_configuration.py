"""How the docker role writes Docker's configuration, which may hold a proxy with its password."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_host.constants import PLANNED_OPTIONS
from edge_host.host_info.docker import read_own_registries, select_options

ROOT = Path(__file__).parents[3]
TASKS = ROOT / "roles/docker/tasks/write_configuration.yml"
NOTE = TASKS.with_name("note_registries.yml")
CONFIGURE = TASKS.with_name("configure.yml")
UNINSTALL = TASKS.with_name("uninstall.yml")
INSTALL = TASKS.with_name("install.yml")
VARIABLES = yaml.safe_load((ROOT / "roles/docker/vars/main.yml").read_text())
PROXY = "http://user:hunter2@proxy.example:3128"
THEIRS = {"proxies": {"http-proxy": PROXY}}
PLANNED = THEIRS | {"live-restore": True}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "docker"
    folder.mkdir()
    return folder / "daemon.json"


def write(file: Path, *options: str) -> str:
    """Write the configuration, and return all that Ansible says."""
    variables = {"__docker_file": str(file), "docker_configuration": PLANNED}
    return run(file, TASKS, variables, *options)


def run(file: Path, tasks: Path, variables: dict[str, Any], *options: str) -> str:
    """Run tasks of the role on this machine, and return all that Ansible says."""
    play: dict[str, Any] = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": variables | {"ansible_python_interpreter": sys.executable},
        "tasks": [{"ansible.builtin.include_tasks": str(tasks)}],
        "handlers": [{"name": "Reload Docker", "ansible.builtin.debug": {"msg": "reloaded"}}],
    }
    playbook = file.parent.parent / "play.yml"
    playbook.write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local",
            *options, str(playbook),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"ANSIBLE_FORCE_COLOR": "false"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# A role's own user changes owners, which takes root.
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files to root")


@needs_root
@pytest.mark.parametrize("was", [0o600, 0o640, 0o644])
def test_mode_and_owner_stay(file: Path, was: int) -> None:
    file.write_text(json.dumps(THEIRS))
    file.chmod(was)
    os.chown(file, 0, 65534)
    assert "reloaded" in write(file)
    assert json.loads(file.read_text()) == PLANNED
    assert (mode(file), file.stat().st_uid, file.stat().st_gid) == (was, 0, 65534)


@needs_root
def test_root_alone_reads_the_backups(file: Path) -> None:
    file.write_text(json.dumps(THEIRS))
    file.chmod(0o644)
    earlier = file.with_name("daemon.json.7.2026-01-02@10:00:00~")
    earlier.write_text(json.dumps(THEIRS))
    earlier.chmod(0o644)
    write(file)
    backups = [path for path in file.parent.iterdir() if path.name.endswith("~")]
    assert len(backups) == 2
    assert {mode(path) for path in backups} == {0o600}
    assert all(json.loads(path.read_text()) == THEIRS for path in backups)


@needs_root
def test_no_output_shows_the_content(file: Path) -> None:
    file.write_text(json.dumps(THEIRS))
    assert "hunter2" not in write(file, "--check", "--diff", "-vvv")
    assert "hunter2" not in write(file, "--diff", "-vvv")


def configure(file: Path, *options: str) -> str:
    """Bring the plan's options into the file, as a run does: from facts without the others."""
    there = json.loads(file.read_text()) if file.exists() else None
    told = select_options(there, PLANNED_OPTIONS)
    variables = {
        "__docker_file": str(file),
        "__docker_configuration": VARIABLES["__docker_configuration"],
        "docker_state": {"docker": {"daemon_json": told}},
        "docker_plan": {"docker": {"daemon_json": (told or {}) | {"live-restore": True}}},
    }
    return run(file, CONFIGURE, variables, *options)


@needs_root
@pytest.mark.parametrize("was", [0o600, 0o644])
def test_options_of_others_stay_and_are_not_shown(file: Path, was: int) -> None:
    theirs = THEIRS | {"debug": True, "log-opts": {"splunk-token": "hunter2"}}
    file.write_text(json.dumps(theirs))
    file.chmod(was)
    said = configure(file, "--check", "--diff", "-vvv")
    assert "reloaded" in said
    assert json.loads(file.read_text()) == theirs
    said += configure(file, "--diff", "-vvv")
    assert json.loads(file.read_text()) == theirs | {"live-restore": True}
    assert mode(file) == was
    assert "hunter2" not in said
    # What Ansible shows of the file's reader and writer.
    assert "censored" in said
    assert "hunter2" not in configure(file, "-vvv")


@needs_root
def test_a_host_without_a_file_gets_the_planned_options(file: Path) -> None:
    configure(file)
    assert json.loads(file.read_text()) == {"live-restore": True}


def uninstall(file: Path, *options: str) -> str:
    """Take the project's options out of the file again."""
    told = select_options(json.loads(file.read_text()), PLANNED_OPTIONS)
    plan = {
        "docker": {"daemon_json": {"live-restore": True}},
        "gpu": {"runtime": None},
        "images": {"cache": ""},
    }
    variables = VARIABLES | {
        "__docker_file": str(file),
        "__docker_own_file": str(file.with_name("edge-llm.json")),
        "docker_state": {"docker": {"daemon_json": told}},
        "docker_options": {},
        "docker_releases": [{"plan": plan}],
    }
    return run(file, UNINSTALL, variables, *options)


@needs_root
def test_an_uninstallation_shows_nothing_and_leaves_what_was_there(file: Path) -> None:
    file.write_text(json.dumps(THEIRS))
    said = configure(file)
    said = uninstall(file, "--check", "--diff", "-vvv")
    assert json.loads(file.read_text()) == PLANNED
    said += uninstall(file, "--diff", "-vvv")
    assert json.loads(file.read_text()) == THEIRS
    assert "hunter2" not in said


@needs_root
def test_a_file_of_the_project_alone_goes(file: Path) -> None:
    configure(file)
    uninstall(file)
    assert not file.exists()


def test_what_is_the_projects_is_noted_before_it_is_written() -> None:
    """And forgotten after it is gone: a run that ends in between leaves nothing unknown."""
    names = [task["name"] for task in yaml.safe_load(INSTALL.read_text())]
    note, write_file, forget = (
        names.index("Note the registries of this project in Docker's configuration"),
        names.index("Configure Docker where its configuration differs"),
        names.index("Forget the registries of this project that are gone"),
    )
    assert note < write_file < forget


@needs_root
def test_the_registries_of_the_project_are_listed(file: Path) -> None:
    listed = file.with_name("edge-llm.json")
    own = ["192.0.2.9:5000"]
    run(file, NOTE, {"__docker_own_file": str(listed), "docker_registries": own})
    assert json.loads(listed.read_text()) == {"insecure-registries": own}
    assert mode(listed) == 0o644
    # As host_info reads it.
    (file.parent.parent / "etc").mkdir()
    file.parent.rename(file.parent.parent / "etc/docker")
    assert read_own_registries(file.parent.parent) == own


@needs_root
def test_a_first_file_is_readable(file: Path) -> None:
    """Docker's own tools read it as other users; only the project's options are in it."""
    write(file)
    assert (mode(file), file.stat().st_uid) == (0o644, 0)
    assert [path.name for path in file.parent.iterdir()] == ["daemon.json"]
