"""A host that pulls runs what a signer has signed, and nothing else: with git and ansible-pull."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from edge_fleet.pull import STATE

ROLE = Path(__file__).parents[3] / "roles/pull"
EXPOSURE = 40
"""systemd-analyze's figure, in tenths: at most."""
SITE = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        content: "%s {{ llm_api_key }}"
        dest: "{{ marks }}/{{ inventory_hostname }}"
        mode: "0600"
"""
# Read, and with it run, by whatever Ansible starts with this configuration.
PLUGIN = """
from pathlib import Path
from ansible.plugins.callback import CallbackBase
Path("MARKS/plugin").write_text("VERSION")
class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "mark"
    CALLBACK_NEEDS_ENABLED = True
"""
CONFIGURATION = "[defaults]\ncallback_plugins = plugins\ncallbacks_enabled = mark\n"


def render(name: str, **variables: Any) -> str:
    environment = jinja2.Environment(  # noqa: S701 (nothing here is HTML)
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        keep_trailing_newline=True,
    )
    given = {
        "pull_repository": "https://git.example/fleet.git",
        "pull_version": "v1",
        "pull_inventory": "inventories/mine",
        "pull_interval": 60,
        "pull_programs": "/opt/edge-llm-pull",
        "pull_state": STATE,
        "pull_environment": "/opt/edge-llm-pull/environment-1",
        "inventory_hostname": "kitchen",
    }
    return environment.get_template(f"{name}.j2").render(given | variables)


def options(text: str) -> dict[str, list[str]]:
    """The values of each option of a unit."""
    found: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@dataclass
class Fleet:
    """A repository, whose commits and tags can be signed, and a host that pulls from it."""

    folder: Path
    version: str = "v1"

    def __post_init__(self) -> None:
        for name in ("work", "programs", "state", "marks"):
            (self.folder / name).mkdir()
        for name in ("signer", "stranger"):
            self._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name)
        public = (self.folder / "signer.pub").read_text()
        (self.folder / "programs/signers").write_text(f"maintainer {public}")
        (self.folder / "programs/gitconfig").write_text(
            render("gitconfig", pull_programs=self.folder / "programs")
        )
        shutil.copy(ROLE / "files/fetch", self.folder / "programs/fetch")
        self.git("init", "--quiet", "--initial-branch=main")

    def _run(self, *words: str | Path, environment: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            cwd=self.folder / "work",
        )
        return done.stdout.strip()

    def git(self, *words: str, key: str = "signer", date: int = 1_800_000_000) -> str:
        stamp = f"{date} +0000"
        who = {"NAME": "maintainer", "EMAIL": "maintainer@example.org", "DATE": stamp}
        settings = {"gpg.format": "ssh", "user.signingkey": str(self.folder / key)}
        return self._run(
            "git",
            *(word for each in settings.items() for word in ("-c", "=".join(each))),
            *words,
            environment={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                **{f"GIT_{part}_{name}": value for name, value in who.items()
                   for part in ("AUTHOR", "COMMITTER")},
            },
        )  # fmt: skip

    def commit(self, text: str, *words: str, **made: Any) -> str:
        """Commit a site.yml, and a plugin that leaves a mark wherever it is loaded."""
        work, marks = self.folder / "work", self.folder / "marks"
        (work / "inventories/mine").mkdir(parents=True, exist_ok=True)
        (work / "inventories/mine/hosts.yml").write_text(
            f"all: {{hosts: {{kitchen: {{}}, hallway: {{}}}}, vars: {{marks: {marks}}}}}\n"
        )
        (work / "site.yml").write_text(SITE % text)
        (work / "ansible.cfg").write_text(CONFIGURATION)
        (work / "plugins").mkdir(exist_ok=True)
        plugin = PLUGIN.replace("MARKS", str(marks)).replace("VERSION", text)
        (work / "plugins/mark.py").write_text(plugin)
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", text, *words, **made)
        return self.git("rev-parse", "HEAD")

    def start(self) -> subprocess.CompletedProcess[str]:
        """What the service does: ExecStartPre, and ExecStart where that succeeds."""
        state = self.folder / "state"
        environment = self.folder / "environment/bin"
        if not environment.exists():
            environment.mkdir(parents=True)
            for name in ("ansible", "ansible-playbook", "ansible-pull"):
                (environment / name).symlink_to(Path(sys.executable).with_name(name))
        (state / "variables.json").write_text(
            '{"llm_api_key": "own-key", "ansible_connection": "local",'
            f' "ansible_python_interpreter": "{sys.executable}"}}'
        )
        unit = options(
            render(
                "edge-llm-pull.service",
                pull_repository=f"file://{self.folder}/work",
                pull_version=self.version,
                pull_programs=self.folder / "programs",
                pull_state=state,
                pull_environment=environment.parent,
            )
        )
        given = dict(each.split("=", 1) for line in unit["Environment"] for each in line.split())
        (folder,) = unit["WorkingDirectory"]
        for command in (*unit["ExecStartPre"], *unit["ExecStart"]):
            done = subprocess.run(
                shlex.split(command), cwd=folder, env={"PATH": os.environ["PATH"], **given},
                capture_output=True, text=True, check=False, timeout=300,
            )  # fmt: skip
            if done.returncode:
                break
        return done

    @property
    def marks(self) -> dict[str, str]:
        """What runs have left behind: of the plugin, and of site.yml on each host."""
        return {path.name: path.read_text() for path in (self.folder / "marks").iterdir()}

    def unmark(self) -> None:
        for path in (self.folder / "marks").iterdir():
            path.unlink()


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_a_signed_tag_runs_on_this_host_alone(fleet: Fleet) -> None:
    fleet.commit("one")
    fleet.git("tag", "--sign", "-m", "v1", "v1")
    done = fleet.start()
    assert done.returncode == 0, done.stdout + done.stderr
    assert fleet.marks == {"kitchen": "one own-key", "plugin": "one"}
    # The next run has nothing to fetch, and corrects what has changed on the host.
    fleet.unmark()
    done = fleet.start()
    assert done.returncode == 0, done.stdout + done.stderr
    assert fleet.marks == {"kitchen": "one own-key", "plugin": "one"}


def test_a_branch_is_followed_as_far_as_its_commits_are_signed(fleet: Fleet) -> None:
    fleet.version = "main"
    fleet.commit("one", "--gpg-sign")
    assert fleet.start().returncode == 0
    fleet.commit("two", "--gpg-sign", date=1_800_000_100)
    assert fleet.start().returncode == 0
    assert fleet.marks["kitchen"] == "two own-key"
    fleet.unmark()
    for number in range(2):
        fleet.commit(f"attack {number}", date=1_800_000_200)
        done = fleet.start()
        assert done.returncode != 0
        assert "is invalid: its last commit is not signed by one of the signers." in done.stderr
        # Nothing of it was loaded, at the second try either.
        assert fleet.marks == {}


@pytest.mark.parametrize("words", [("--sign", "-m", "v1"), ("-m", "v1"), ()])
def test_a_tag_of_nobody_who_is_trusted_is_refused(fleet: Fleet, words: tuple[str, ...]) -> None:
    """Signed with another key, without a signature, and a name for a signed commit."""
    fleet.commit("one", "--gpg-sign")
    fleet.git("tag", *words, "v1", key="stranger")
    done = fleet.start()
    assert done.returncode != 0
    assert f"v1 of file://{fleet.folder}/work is invalid: the tag " in done.stderr
    assert done.stderr.rstrip().endswith("The host keeps what it has.")
    assert fleet.marks == {}


def test_another_signed_tag_cannot_take_the_place(fleet: Fleet) -> None:
    fleet.commit("one")
    fleet.git("tag", "--sign", "-m", "v0", "v0")
    fleet.git("update-ref", "refs/tags/v1", "refs/tags/v0")
    done = fleet.start()
    assert done.returncode != 0
    assert "is invalid: the tag there was signed as v0." in done.stderr
    assert fleet.marks == {}


def test_an_earlier_commit_of_a_branch_is_refused(fleet: Fleet) -> None:
    fleet.version = "main"
    first = fleet.commit("one", "--gpg-sign")
    fleet.commit("two", "--gpg-sign", date=1_800_000_100)
    assert fleet.start().returncode == 0
    fleet.unmark()
    fleet.git("reset", "--quiet", "--hard", first)
    done = fleet.start()
    assert done.returncode != 0
    assert "is invalid: its last commit is older than the one that the host has." in done.stderr
    assert fleet.marks == {}


def test_a_version_that_is_not_there_is_named(fleet: Fleet) -> None:
    fleet.commit("one", "--gpg-sign")
    fleet.version = "v9"
    done = fleet.start()
    assert done.returncode != 0
    assert "v9 of " in done.stderr
    assert "Check board_pull_repository and board_pull_version." in done.stderr


def test_folders_are_those_that_the_decision_names() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert defaults["pull_state"] == STATE


def test_a_host_is_refused_before_anything_changes() -> None:
    tasks = yaml.safe_load((ROLE / "tasks/install.yml").read_text())
    names = [task["name"] for task in tasks]
    assert names.index("Refuse a host that cannot pull") == 2
    for task in tasks[:2]:
        assert {"ansible.builtin.command", "ansible.builtin.set_fact"} & set(task)


@pytest.mark.parametrize("name", ["variables.json", "files/{{ item.key }}"])
def test_secrets_are_root_s_and_are_not_shown(name: str) -> None:
    tasks = yaml.safe_load((ROLE / "tasks/install.yml").read_text())
    copies = [task for task in tasks if "ansible.builtin.copy" in task]
    (task,) = [
        each for each in copies
        if each["ansible.builtin.copy"]["dest"] == f"{{{{ pull_state }}}}/{name}"
    ]  # fmt: skip
    assert (task["no_log"], task["diff"]) == (True, False)
    assert task["ansible.builtin.copy"]["mode"] == "0600"


def test_hosts_do_not_pull_at_once() -> None:
    assert options(render("edge-llm-pull.timer"))["RandomizedDelaySec"] == ["15min"]
    assert options(render("edge-llm-pull.timer", pull_interval=15))["OnUnitInactiveSec"] == [
        "15min"
    ]


analyze = pytest.mark.skipif(
    "--offline" not in subprocess.run(
        [shutil.which("systemd-analyze") or "true", "--help"],
        capture_output=True, text=True, check=False,
    ).stdout,
    reason="systemd-analyze of this machine reads no unit files",
)  # fmt: skip


@analyze
def test_exposure(tmp_path: Path) -> None:
    unit = tmp_path / "edge-llm-pull.service"
    text = render("edge-llm-pull.service")
    words = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(unit)]
    unit.write_text(text)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    unit.write_text(text.partition("NoNewPrivileges")[0])
    assert subprocess.run(words, capture_output=True, check=False).returncode != 0


@analyze
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    programs = {"pull_programs": str(tmp_path), "pull_environment": str(tmp_path)}
    for name in ("fetch", "bin/ansible-pull"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to("/bin/true")
    for name in ("edge-llm-pull.service", "edge-llm-pull.timer"):
        (tmp_path / name).write_text(render(name, **programs))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "edge-llm-pull.timer")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "edge-llm" in line] == []
