"""The tasks that write clients' keys to a host: hashes, nothing shown, no change without one."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_provider.server.key_store import parse_keys

ROOT = Path(__file__).parents[3]
MAIN, ALICE, BOB = "the-main-key-of-the-host", "alices-key-is-long", "bobs-key-is-long-enough"
# YAML reads a date and a time here.
VARIABLES = f"""\
llm_api_keys:
  alice: {{key: {ALICE}, expires: 2027-01-01, requests_per_minute: 30}}
  bob: {{key: {BOB}, expires: 2026-12-10T00:00:00Z}}
"""


def write_task() -> dict[str, Any]:
    tasks = yaml.safe_load((ROOT / "roles/stack/tasks/deploy.yml").read_text())
    (found,) = [each for each in tasks if each["name"] == "Write the keys of clients"]
    copy = found["ansible.builtin.copy"]
    # Only root may give a file away.
    assert (copy.pop("owner"), copy.pop("group")) == ("root", "{{ __stack_api_uid }}")
    return dict(found)


def pass_task() -> dict[str, Any]:
    tasks = yaml.safe_load((ROOT / "roles/preflight/tasks/main.yml").read_text())
    return dict(next(each for each in tasks if each["name"].startswith("Pass the keys")))


def step(folder: Path, task: dict[str, Any], **variables: Any) -> dict[str, Any]:
    state = {"deployment": {"plain_keys": variables.pop("plain_keys", False)}}
    return task | {"vars": {"stack_root": str(folder), "stack_state": state, **variables}}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], str]:
    """The folder of a host, the results of the steps below, and all that was printed."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "secrets").mkdir()
    (folder / "variables.yml").write_text(VARIABLES)
    task = write_task()
    written = {"stack_key_files": "{{ preflight_key_files }}"}
    steps = [
        step(folder, task, **written),
        step(folder, task, **written),
        step(folder, task, **written, plain_keys=True),
        step(folder, task, **written, plain_keys=True, llm_api_keys=[BOB]),
        pass_task(),
        {"debug": {"var": "preflight_key_notices"}},
    ]
    variables = {
        "llm_api_key": MAIN,
        "preflight_time": "2026-11-30T10:00:00Z",
        "preflight_url": "http://pi:8000",
        "__preflight_client": {},
    }
    load = [
        {"include_vars": {"file": str(ROOT / "roles/preflight/defaults/main.yml")}},
        {"set_fact": variables, "no_log": True},
    ]
    playbook = folder / "play.yml"
    play = {"hosts": "all", "vars_files": [str(folder / "variables.yml")], "tasks": load + steps}
    playbook.write_text(json.dumps([play]))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local",
            "-e", f"ansible_python_interpreter={sys.executable}", "--diff", "-vvv", str(playbook),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    output = json.loads(done.stdout[done.stdout.index("{\n") :])
    results = [each["hosts"]["localhost"] for each in output["plays"][0]["tasks"]]
    return folder, results[len(load) :], done.stdout + done.stderr


Played = tuple[Path, list[dict[str, Any]], str]


def test_the_keys_are_written_once_and_again_when_they_change(played: Played) -> None:
    _, results, _ = played
    # The third step is the first with a release of an earlier version on the host.
    assert [each["changed"] for each in results[:4]] == [True, False, True, True]


def test_the_files_are_for_root_and_the_chat_api_alone(played: Played) -> None:
    folder, _, _ = played
    for name in ("api_keys", "api_keys.jsonl"):
        mode = (folder / "secrets" / name).stat().st_mode
        assert stat.S_IMODE(mode) == 0o640
    text = (folder / "secrets/api_keys.jsonl").read_text()
    # In the last step: a list, so that the name follows the hash.
    assert [each.name for each in parse_keys(text)] == ["default", "key-7ff91bfb", "host"]
    assert (folder / "secrets/api_keys").read_text() == f"{MAIN}\n{BOB}\n"
    for key in (MAIN, ALICE, BOB):
        assert key not in text


def test_nothing_printed_has_a_key_or_its_hash(played: Played) -> None:
    folder, _, output = played
    text = (folder / "secrets/api_keys.jsonl").read_text()
    hashes = [json.loads(line)["sha256"] for line in text.splitlines() if line[0] == "{"]
    own = text.partition("# own key: ")[2].splitlines()[0]
    assert len(hashes) == 3
    for secret in (MAIN, ALICE, BOB, own, *hashes):
        assert secret not in output


def test_keys_that_expire_soon_are_noted_for_the_report(played: Played) -> None:
    _, results, _ = played
    assert results[-1]["preflight_key_notices"] == [
        "the key bob expires at 2026-12-10T00:00:00Z: then it is refused. Give it a later"
        " `expires` in llm_api_keys, or remove it."
    ]
