"""playbooks/uninstall.yml leaves Docker, packages and, unless asked otherwise, the weights."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.load import FOLDER, Board, board_named, known_answers
from tests.playing import client_file, message, play
from tests.waiting import until

HOST = "jetson-01"
PLAYBOOK = "playbooks/uninstall.yml"
YES = {"uninstall_confirmed": True}
_HOLDER = "/run/edge-llm-test-holder"
# Paths, containers, networks, images and units; weights, options and holds are looked at apart.
_TRACES = f"""
find {FOLDER} -maxdepth 1 -mindepth 1 ! -name models 2>/dev/null
ls -d /opt/edge-llm-registry /run/edge-llm-fetch /etc/docker/edge-llm.json 2>/dev/null
find /etc/systemd/system -name '*edge-llm*'
docker ps --all --format '{{{{.Names}}}}' | grep edge-llm
docker network ls --format '{{{{.Name}}}}' | grep edge-llm
docker image ls --format '{{{{.Repository}}}}' | grep edge-llm
systemctl list-units --all --plain --no-legend 'edge-llm*'
true
"""
# What an operator has on another board before the project comes.
OTHER = "pi-01"
_OPTIONS = {"debug": False, "insecure-registries": ["192.0.2.1:5000"], "log-level": "warn"}
_OPERATORS_UNIT = "/etc/systemd/system/operator.service"
_PREPARE = f"""
rm -f /etc/docker/daemon.json*
umask 027
echo '{json.dumps(_OPTIONS)}' > /etc/docker/daemon.json
printf '[Service]\nExecStart=/bin/true\n' > {_OPERATORS_UNIT}
apt-mark hold docker.io
"""
_CLEAN = f"""
rm -f {_OPERATORS_UNIT} /etc/docker/daemon.json*
apt-mark unhold docker.io containerd
"""
# Names and modes of files; but for the project's, and for backups.
_OPERATORS = r"""
find /etc/docker /etc/systemd/system -type f -printf '%p %m %U:%G\n' | grep -v 'edge-llm\|~ '
find /opt -maxdepth 1
apt-mark showhold
"""


def traces(board: Board) -> list[str]:
    """What the board has of this project, but for its weights; Docker lists images in any order."""
    return sorted(board.run("sh", "-c", _TRACES).splitlines())


def weights(board: Board) -> str:
    return board.run("sh", "-c", f"cd {FOLDER} && find models -type f -printf '%p %s %i\\n' | sort")


def daemon_json(board: Board) -> dict[str, Any]:
    text = board.run("sh", "-c", "cat /etc/docker/daemon.json 2>/dev/null || echo '{}'")
    found: dict[str, Any] = json.loads(text)
    return found


def operators(board: Board) -> list[str]:
    """What is the operator's on the board: files of Docker and systemd, and packages on hold."""
    found = board.run("sh", "-c", _OPERATORS).splitlines()
    return sorted(each for each in found if not each.startswith("/opt/edge-llm"))


def changed(done: subprocess.CompletedProcess[str]) -> int:
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "unreachable=" in line]
    return int(line.partition("changed=")[2].split()[0])


@pytest.fixture(scope="module")
def before() -> list[str]:
    """What the operator of the other board has before the project comes."""
    other = board_named(OTHER)
    other.run("sh", "-c", _PREPARE)
    return operators(other)


@pytest.fixture(scope="module")
def board(before: list[str]) -> Iterator[Board]:
    """A board that serves, with a registry of its own; it serves again at the end."""
    done = play("site.yml", f"{HOST},{OTHER}", llm_images_cache=HOST)
    assert done.returncode == 0, done.stdout
    yield board_named(HOST)
    board_named(OTHER).run("sh", "-c", _CLEAN)
    done = play("site.yml", f"{HOST},{OTHER}")
    assert done.returncode == 0, done.stdout
    assert board_named(HOST).asked() == known_answers()["smollm2-135m"]


def test_nothing_is_removed_without_a_confirmation(board: Board) -> None:
    before = traces(board)
    done = play(PLAYBOOK, HOST)
    assert done.returncode == 2
    assert "The confirmation is missing: nothing has been removed." in message(done)
    assert traces(board) == before


@contextmanager
def locked(board: Board) -> Iterator[None]:
    """Somebody changes the board."""
    held = {"by": "alice@laptop", "since": "2026-11-29T10:00:00Z", "pid": 1}
    script = (
        f"exec 9<>{FOLDER}/.lock; flock 9; echo '{json.dumps(held)}' > {FOLDER}/.lock;"
        f" echo $$ > {_HOLDER}; exec sleep 600"
    )
    holder = subprocess.Popen(["docker", "exec", f"test-{board.name}", "sh", "-c", script])
    try:
        until(lambda: board.run("sh", "-c", f"cat {_HOLDER} 2>/dev/null || true"), "the lock")
        yield
    finally:
        board.run("sh", "-c", f"kill $(cat {_HOLDER}); rm {_HOLDER}")
        holder.wait(60)


def test_a_host_that_is_being_changed_is_refused(board: Board) -> None:
    before = traces(board)
    with locked(board):
        done = play(PLAYBOOK, HOST, **YES)
    assert done.returncode == 2
    assert (
        f"{HOST}: the host is being changed: alice@laptop has held its lock since"
        " 2026-11-29T10:00:00Z. Run this again when that change has ended." in message(done)
    )
    assert traces(board) == before
    assert board.asked() == known_answers()["smollm2-135m"]


def test_a_check_run_removes_nothing(board: Board) -> None:
    before = traces(board), weights(board), daemon_json(board), client_file(HOST).read_text()
    done = play(PLAYBOOK, HOST, "--check", uninstall_weights=True, uninstall_control_files=True)
    assert changed(done) > 5
    assert "Would remove 3 containers and 0 networks of edge-llm." in message(done)
    after = traces(board), weights(board), daemon_json(board), client_file(HOST).read_text()
    assert after == before
    assert board.asked() == known_answers()["smollm2-135m"]


def test_all_but_the_weights_is_removed(board: Board) -> None:
    assert "edge-llm-registry-reads" in traces(board)
    assert "/etc/systemd/system/edge-llm-registry.socket" in traces(board)
    assert "insecure-registries" in daemon_json(board)
    kept = weights(board)
    somebody = "docker run --detach --name somebody --network none"
    image = board.run("sh", "-c", "docker inspect -f '{{.Image}}' edge-llm-network").strip()
    board.run("sh", "-c", f"{somebody} --entrypoint sleep {image} 600")
    done = play(PLAYBOOK, HOST, **YES)
    try:
        assert changed(done) > 5
        stays = re.findall(r"the image (\S+) stays, since .*? \((.*?)\)\. Once", message(done))
        assert [image.partition(":")[0] for image, _ in stays] == ["edge-llm/chat-api"], stays
        assert "is using its referenced image" in stays[0][1]
        assert [line for line in traces(board) if "chat-api" not in line] == []
        assert board.run("docker", "inspect", "-f", "{{.State.Running}}", "somebody") == "true\n"
    finally:
        board.run("docker", "rm", "--force", "somebody")
    assert weights(board) == kept
    assert client_file(HOST).exists()
    assert board.run("systemctl", "is-active", "docker").strip() == "active"
    # The image that was in use goes now.
    assert changed(play(PLAYBOOK, HOST, **YES)) > 0
    assert traces(board) == []


def test_a_second_run_changes_nothing(board: Board) -> None:
    assert changed(play(PLAYBOOK, HOST, **YES)) == 0
    assert traces(board) == []


def test_docker_options_of_the_project_are_removed(board: Board) -> None:
    """The board had no daemon.json of its own: what the docker role wrote is known by its form."""
    assert daemon_json(board) == {}


def test_what_is_the_operators_stays(board: Board, before: list[str]) -> None:
    """A package that the project has pinned is unpinned; one that somebody else has is reported."""
    operated = board_named(OTHER)
    assert {"/etc/docker/daemon.json 640 0:0", f"{_OPERATORS_UNIT} 640 0:0", "docker.io"} < set(
        before
    )
    assert "live-restore" in daemon_json(operated)
    pin = (
        "import json, pathlib; file = pathlib.Path('/opt/edge-llm/current/release.json');"
        " record = json.loads(file.read_text());"
        " record['plan']['known_issues'].setdefault('fixes', {})['hold'] = ['containerd'];"
        " file.write_text(json.dumps(record))"
    )
    operated.run("python3", "-c", pin)
    operated.run("apt-mark", "hold", "containerd")
    done = play(PLAYBOOK, OTHER, **YES)
    assert changed(done) > 5
    said = message(done)
    assert (
        f"{OTHER}: packages stay pinned, since it is not known who has pinned them: docker.io."
        in said
    )
    assert operators(operated) == before
    assert daemon_json(operated) == _OPTIONS
    assert traces(operated) == []


def test_weights_and_files_of_the_control_machine_are_removed_where_asked(board: Board) -> None:
    asked = {"uninstall_weights": True, "uninstall_control_files": True}
    assert changed(play(PLAYBOOK, HOST, **YES, **asked)) > 0
    assert board.run("sh", "-c", f"ls -d {FOLDER} 2>/dev/null || echo none").strip() == "none"
    assert not client_file(HOST).exists()
    assert changed(play(PLAYBOOK, HOST, **YES, **asked)) == 0
