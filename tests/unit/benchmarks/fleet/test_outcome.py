"""A run that did something else than is measured is reported, and so is a log with gaps."""

from __future__ import annotations

import pytest

from benchmarks.fleet import running, sessions
from benchmarks.fleet.outcome import problems


def counts(changed: int = 0, failures: int = 0, unreachable: int = 0) -> dict[str, int]:
    return {"ok": 5, "changed": changed, "failures": failures, "unreachable": unreachable}


def test_a_run_as_expected_has_no_problem() -> None:
    found = {"a": counts(), "b": counts(changed=2), "c": counts(unreachable=1)}
    assert problems(found, ["a", "b", "c"], changed={"b"}, down={"c"}) == []


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"a": counts(changed=1), "b": counts(changed=1)}, "a: 1 tasks changed something."),
        ({"a": counts(), "b": counts()}, "b: 0 tasks changed something."),
        ({"a": counts(failures=1), "b": counts(changed=1)}, "a: the host failed."),
        ({"b": counts(changed=1)}, "a: the run left the host out."),
        (
            {"a": counts(unreachable=1), "b": counts(changed=1)},
            "a: the host was reported as unreachable.",
        ),
        (
            {"a": counts(), "b": counts(changed=1), "z": counts()},
            "z: the run was not for the host.",
        ),
    ],
)
def test_another_run_is_not_measured(found: dict[str, dict[str, int]], sentence: str) -> None:
    assert problems(found, ["a", "b"], changed={"b"}) == [sentence]


def test_a_host_that_is_down_must_be_reported() -> None:
    assert problems({"a": counts()}, ["a"], down={"a"}) == [
        "a: the host was not reported as unreachable."
    ]


CONVERGED = "--> Starting operation: dir\n    [fleet-01] No changes\n"


@pytest.mark.parametrize(
    ("status", "output", "converged", "sentence"),
    [
        (0, CONVERGED, True, None),
        (0, "    [fleet-01] Success\n", False, None),
        (0, "    [fleet-01] Success\n", True, "pyinfra changed a host that was converged."),
        (1, CONVERGED, False, "pyinfra ended with the exit status 1."),
    ],
)
def test_pyinfra(status: int, output: str, converged: bool, sentence: str | None) -> None:
    assert running.pyinfra_problem(status, output, converged=converged) == sentence


# As sshd of OpenSSH 10 writes them at LogLevel VERBOSE.
LOG = """\
Connection from 198.18.41.1 port 40001 on 198.18.41.100 port 22 rdomain ""
Accepted publickey for root from 198.18.41.1 port 40001 ssh2: ED25519 SHA256:abc
Starting session: command for root from 198.18.41.1 port 40001 id 0
Close session: user root from 198.18.41.1 port 40001 id 0
Connection from 198.18.41.1 port 40002 on 198.18.41.101 port 22 rdomain ""
Starting session: subsystem 'sftp' for root from 198.18.41.1 port 40002 id 0
Starting session: command on pts/0 for root from 198.18.41.1 port 40001 id 1
Starting session: shell on pts/1 for root from 198.18.41.1 port 40002 id 2
"""


def test_sessions_are_counted_by_the_address_that_was_connected_to() -> None:
    assert sessions.count(LOG) == {"198.18.41.100": 2, "198.18.41.101": 2}
    assert sessions.count("") == {}


@pytest.mark.parametrize(
    "line",
    [
        "Suppressed 204 messages from ssh.service",
        "Starting session: command for root from 198.18.41.1 port 50000 id 0",
    ],
)
def test_a_log_with_gaps_is_reported(line: str) -> None:
    with pytest.raises(ValueError, match="The log of the board is incomplete: S"):
        sessions.count(f"{LOG}{line}\n")
