"""Test suites in the role verify: what fails a host, and when it is rolled back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.llm_provider.scripted import KEY, Scripted, reply, serving, whole

ROOT = Path(__file__).parents[3]
SENTENCE = "All systems are ready: the edge model answers."
EVIL = "\x1b[2J {{ 7 * 6 }} {% raw %} \u202e"
# In place of the roles that act on a host.
STACK = [
    {"name": "Roll back", "ansible.builtin.debug": {"msg": "to {{ stack_rollback_release }}"}},
    {
        "name": "Fail, where the test says so",
        "ansible.builtin.fail": {"msg": "no engine started"},
        "when": "rollback_fails | default(false)",
    },
]
CLIENT = [{"name": "Keep the address", "ansible.builtin.debug": {"msg": "kept"}}]


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with serving(Scripted()) as running:
        yield running


def run(folder: Path, server: Scripted, tasks: str, *options: str, **variables: Any) -> Any:
    """Run tasks of the role on this machine: exit status, results by the tasks' names."""
    for role, name, stub in (("stack", "rollback", STACK), ("preflight", "client", CLIENT)):
        path = folder / f"roles/{role}/tasks/{name}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(stub))
    included = {"name": "verify", "tasks_from": tasks, "rolespec_validate": False}
    include = {"name": "The role", "ansible.builtin.include_role": included}
    given = {
        "verify_project": str(ROOT),
        "verify_url": server.url,
        "verify_api_key": KEY,
        "verify_ca_file": "",
        **variables,
    }
    (folder / "play.yml").write_text(json.dumps([{"hosts": "all", "tasks": [include]}]))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"), "-i", "pi-01,", "-c", "local",
            *("-e", f"ansible_python_interpreter={sys.executable}", "-e", json.dumps(given)),
            *options, str(folder / "play.yml"),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        },
    )  # fmt: skip
    assert "{" in done.stdout, done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
    output = json.loads(done.stdout[done.stdout.index("{") :])
    found = {
        task["task"]["name"].removeprefix("verify : "): task["hosts"]["pi-01"]
        for task in output["plays"][0]["tasks"]
        if not task["hosts"].get("pi-01", {"skipped": True}).get("skipped")
    }
    return done.returncode, found


def failure(results: dict[str, Any], name: str) -> str:
    assert results[name].get("failed"), results
    return str(results[name]["msg"])


REPORT = "Report failed conversations"


def test_a_host_that_passes(tmp_path: Path, server: Scripted) -> None:
    server.reset({"chat": reply(whole(SENTENCE))})
    suites = ["smoke"]
    status, results = run(tmp_path, server, "suites", verify_suites=suites, verify_release_before=3)
    assert status == 0, results
    assert results["Note the results of the suites"]["ansible_facts"]["verify_suite_report"]["ok"]
    assert "stack : Roll back" not in results
    assert not any(each.get("changed") for each in results.values())


def test_a_host_that_fails_goes_back_to_the_release_before(
    tmp_path: Path, server: Scripted
) -> None:
    server.reset({"chat": reply(whole(SENTENCE))})
    status, results = run(
        tmp_path, server, "suites", verify_suites=["smoke-fails", "smoke"], verify_release_before=3
    )
    assert status == 2
    assert results["stack : Roll back"]["msg"] == "to 3"
    assert results["preflight : Keep the address"]["msg"] == "kept"
    lines = failure(results, REPORT).splitlines()
    assert lines[0] == (
        "pi-01: the verification failed: conversations failed: 9 of 9 of smoke-fails"
    )
    assert lines[1].startswith("smoke-fails, equals: equals: expected the answer 'I am here.', ")
    assert lines[-2:] == ["and 4 more", "Release 3 serves again."]


def test_a_rollback_that_fails_is_reported_with_the_suite(tmp_path: Path, server: Scripted) -> None:
    server.reset({"chat": reply(whole(SENTENCE))})
    status, results = run(
        tmp_path, server, "suites", verify_suites=["smoke-fails"], verify_release_before=3,
        rollback_fails=True,
    )  # fmt: skip
    assert status == 2
    lines = failure(results, REPORT).splitlines()
    assert "9 of 9 of smoke-fails" in lines[0]
    assert lines[-1] == "The rollback to release 3 failed, too: no engine started"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"stack_change": {"changed": True, "result": {"from": None, "to": 1}}},
        {"stack_change": {"changed": True, "diff": []}},
    ],
    ids=["in place", "first release", "check run"],
)
def test_without_a_release_before_the_host_keeps_its_release(
    tmp_path: Path, server: Scripted, variables: dict[str, Any]
) -> None:
    server.reset({"chat": reply(whole(EVIL))})
    status, results = run(tmp_path, server, "suites", verify_suites=["smoke"], **variables)
    assert status == 2
    assert "stack : Roll back" not in results
    message = " ".join(failure(results, REPORT).split())
    assert "`llm-suite smoke` shows every answer. This run has replaced no release" in message
    # The answer steers no terminal, and is no template.
    assert "{{ 7 * 6 }}" in message
    assert "\x1b" not in message and "\u202e" not in message


def test_the_release_before_is_that_of_the_change(tmp_path: Path, server: Scripted) -> None:
    server.reset({"chat": reply(whole("No."))})
    change = {"changed": True, "result": {"from": 7, "to": 8}}
    status, results = run(tmp_path, server, "suites", verify_suites=["smoke"], stack_change=change)
    assert status == 2
    assert results["stack : Roll back"]["msg"] == "to 7"
    assert failure(results, REPORT).endswith("Release 7 serves again.")


def test_suites_that_could_not_run_roll_nothing_back(tmp_path: Path, server: Scripted) -> None:
    status, results = run(
        tmp_path, server, "suites", verify_suites=["smoke"], verify_release_before=3,
        verify_url="http://127.0.0.1:9",
    )  # fmt: skip
    assert status == 2
    message = failure(results, "Report that the suites could not run")
    assert message.startswith("pi-01: the test suites could not run. Remove the cause, and run")
    assert "llm-suite: the chat API at http://127.0.0.1:9 is not reachable" in message
    assert "stack : Roll back" not in results


def test_suites_are_refused_before_anything_is_changed(tmp_path: Path, server: Scripted) -> None:
    own = tmp_path / "suites"
    own.mkdir()
    (own / "smoke.yml").write_text("title: Mine")
    folders = [str(own), str(ROOT / "suites")]
    for names, words in (
        (["chat", "smok"], "pi-01: llm_suite is invalid: The suite 'smok' is missing: "),
        (["smoke"], f"pi-01: llm_suite is invalid: {own}/smoke.yml is invalid: line 1: "),
    ):
        status, results = run(
            tmp_path, server, "check_suites", verify_suites=names, verify_suite_folders=folders
        )
        assert status == 2
        assert failure(results, "Refuse suites that cannot be used").startswith(words)
    for names in (["chat"], []):
        status, results = run(
            tmp_path, server, "check_suites", "--check",
            verify_suites=names, verify_suite_folders=folders,
        )  # fmt: skip
        assert status == 0, results
