"""A check run writes facts alone on the control machine, and names what a real run would write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_fleet.control_files import client_environment, write_files

ROOT = Path(__file__).parents[3]


def play(folder: Path, tasks: list[dict[str, Any]], *options: str, **variables: Any) -> Any:
    """Run tasks on this machine: the last task's result."""
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "all", "tasks": tasks, "vars": variables}]))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("-i", "localhost,", "-c", "local"),
            *("-e", f"ansible_python_interpreter={sys.executable}"),
            *options, str(playbook),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    output = json.loads(done.stdout[done.stdout.index("{") :])
    return output["plays"][0]["tasks"][-1]["hosts"]["localhost"]


def files(folder: Path) -> set[str]:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return found - {"play.yml"}


@pytest.fixture
def client(tmp_path: Path) -> dict[str, Any]:
    content = "OPENAI_BASE_URL=http://pi:8000/v1\nOPENAI_API_KEY=first\n"
    return {"path": str(tmp_path / "keys/pi.env"), "content": content, "secret": True}


def write(folder: Path, asked: list[dict[str, Any]], *options: str) -> Any:
    """What control_files returns."""
    return play(folder, [{"control_files": {"files": asked}}], *options)


def test_only_what_was_gathered_is_written(tmp_path: Path, client: dict[str, Any]) -> None:
    facts = {"path": str(tmp_path / "facts/pi.json"), "content": "{}\n", "gathered": True}
    done = write(tmp_path, [facts, client], "--check")
    assert files(tmp_path) == {"facts/pi.json"}
    assert done["written"] == [client["path"]]
    assert done["changes"] == [f"{client['path']}: a new file"]
    assert done["changed"] is True


def test_what_was_gathered_is_no_change(tmp_path: Path) -> None:
    facts = {"path": str(tmp_path / "pi.json"), "content": "{}\n", "gathered": True}
    assert write(tmp_path, [facts])["changed"] is False
    assert files(tmp_path) == {"pi.json"}


def test_another_key_is_named_and_not_shown(tmp_path: Path, client: dict[str, Any]) -> None:
    write(tmp_path, [client])
    path = Path(client["path"])
    before = path.read_bytes(), path.stat().st_mtime_ns
    path.parent.chmod(0o500)
    other = client | {"content": client["content"].replace("first", "second")}
    done = write(tmp_path, [other], "--check", "--diff", "-vvv")
    path.parent.chmod(0o700)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert done["changes"] == [f"{path}: OPENAI_API_KEY differs"]
    assert "first" not in json.dumps(done)
    assert "second" not in json.dumps(done)
    assert write(tmp_path, [client], "--check")["changes"] == []


def test_a_mode_is_named(tmp_path: Path, client: dict[str, Any]) -> None:
    write(tmp_path, [client])
    Path(client["path"]).chmod(0o644)
    done = write(tmp_path, [client], "--check")
    assert done["changes"] == [f"{client['path']}: mode 0644 becomes 0600"]
    assert Path(client["path"]).stat().st_mode & 0o777 == 0o644


def test_other_lines_are_counted_and_not_shown(tmp_path: Path) -> None:
    secret = {"path": str(tmp_path / "key"), "content": "one\ntwo\n", "secret": True}
    write(tmp_path, [secret])
    done = write(tmp_path, [secret | {"content": "one\nthree\n"}], "--check")
    assert done["changes"] == [f"{tmp_path}/key: its content differs"]


def test_a_file_that_is_made_once_stays(tmp_path: Path) -> None:
    path = tmp_path / "ca/key.pem"
    first = {"path": str(path), "content": "a\n", "secret": True, "once": True}
    assert write(tmp_path, [first], "--check")["changes"] == [f"{first['path']}: a new file"]
    assert files(tmp_path) == set()
    assert write(tmp_path, [first])["changed"] is True
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert write(tmp_path, [first | {"content": "b\n"}])["changed"] is False
    assert path.read_text() == "a\n"
    assert files(tmp_path) == {"ca/key.pem"}


def test_of_two_runs_that_make_a_file_the_first_wins(tmp_path: Path) -> None:
    path = tmp_path / "ca/key.pem"

    def slow(new: Path, content: bytes, _: Path, mode: int) -> None:
        """Another run makes its file after this one has seen none."""
        path.write_text("the other's")
        new.write_bytes(content)

    asked = {"path": str(path), "content": "ours", "secret": True, "gathered": False, "once": True}
    write_files([asked], False, slow)
    assert path.read_text() == "the other's"
    assert [each.name for each in path.parent.iterdir()] == ["key.pem"]


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ({}, []),
        (
            {"ca": "/keys/ca.pem"},
            ["SSL_CERT_FILE=/keys/ca.pem", "NODE_EXTRA_CA_CERTS=/keys/ca.pem"],
        ),
        (
            {"bundle": "/my keys/all.pem", "ca": "/my keys/ca.pem"},
            ["SSL_CERT_FILE='/my keys/all.pem'", "NODE_EXTRA_CA_CERTS='/my keys/ca.pem'"],
        ),
        ({"bundle": "/keys/all.pem"}, []),
    ],
)
def test_the_environment_of_clients(given: dict[str, str], lines: list[str]) -> None:
    text = client_environment("https://pi:8000", "a-key", **given)
    names = " ".join(line.partition("=")[0] for line in lines)
    assert text.splitlines() == [
        *("OPENAI_BASE_URL=https://pi:8000/v1", "OPENAI_API_KEY=a-key"),
        *lines,
        f"export OPENAI_BASE_URL OPENAI_API_KEY {names}".rstrip(),
    ]
    assert text.endswith("\n")


def test_the_chat_api_bundle_is_not_made(tmp_path: Path) -> None:
    arguments = {
        "project": str(ROOT),
        "cache": str(tmp_path / "cache"),
        "base_image": "python@sha256:0",
        "architecture": "arm64",
    }
    done = play(tmp_path, [{"chat_api_bundle": arguments}], "--check")
    assert files(tmp_path) == set()
    assert not (tmp_path / "cache").exists()
    assert done["image"] == f"edge-llm/chat-api:{done['version']}"


def api_key(folder: Path, *options: str) -> str:
    """The key that clients of a host without llm_api_key send."""
    task = {"debug": {"msg": "{{ preflight_api_key }} {{ preflight_api_key }}"}}
    defaults = str(ROOT / "roles/preflight/defaults/main.yml")
    folder_variables = {"board_secrets_dir": str(folder / "secrets")}
    (folder / "variables.json").write_text(json.dumps(folder_variables))
    load = {"include_vars": {"file": defaults}}
    done = play(folder, [load, task], "-e", f"@{folder / 'variables.json'}", *options)
    first, second = str(done["msg"]).split()
    assert first == second
    return first


def test_a_key_is_not_made(tmp_path: Path) -> None:
    placeholder = api_key(tmp_path, "--check")
    assert files(tmp_path) == {"variables.json"}
    key = api_key(tmp_path)
    assert files(tmp_path) == {"variables.json", "secrets/localhost.key"}
    assert len(key) == 40
    assert key != placeholder
    assert api_key(tmp_path, "--check") == key
