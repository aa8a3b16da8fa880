"""A release that fails its verification is rolled back: the release before serves again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_host.constants import SOCKETS_UNIT
from edge_host.release.steps import ActivationStep
from edge_host.unit_files.recovery import SERVICE
from tests.integration.load import CONTAINER, FOLDER, HOST, Board, known_answers, loaded
from tests.integration.rollback.cutting import (
    REACHED,
    assert_whole,
    change,
    kill,
    reached_step,
    recovery_that_stops_at,
    two_releases,
)
from tests.playing import catalogues, images, message, play, restart
from tests.waiting import until


def catalogue(folder: Path, name: str, path: str, value: object) -> dict[str, Any]:
    """Variables by which site.yml takes catalogues of its own, with one value replaced."""
    return {
        "board_catalogue_dir": str(catalogues(folder, name, path, value)),
        "llm_provider": "llamacpp",
    }


def image_that_does_not_start(_: Path) -> dict[str, Any]:
    return {"llm_provider": "llamacpp", "llm_image": images()["ollama"]}


def model_that_fails_its_verification(folder: Path) -> dict[str, Any]:
    return catalogue(folder, "models.yml", "models/smollm2-135m/proof/answer", "Rome.")


def engine_that_runs_out_of_memory(folder: Path) -> dict[str, Any]:
    place = "engines/llamacpp/environment/LLAMA_ARG_CTX_SIZE"
    return catalogue(folder, "engines.yml", place, "20000000")


@pytest.mark.parametrize("swap", ["beside", "one-by-one"])
@pytest.mark.parametrize(
    ("wrong", "reason", "words"),
    [
        (
            image_that_does_not_start,
            "the engine ended while it started",
            "Error: unknown flag: --api-key-file",
        ),
        (
            model_that_fails_its_verification,
            "the verification failed: chat: expected 'Rome.'",
            "slot print_timing",
        ),
        (
            engine_that_runs_out_of_memory,
            "the engine ended while it started",
            "failed to allocate buffer for kv cache",
        ),
    ],
)
def test_the_release_before_serves_again(
    board: Board, tmp_path: Path, wrong: Any, reason: str, words: str, swap: str
) -> None:
    before = board.current()["number"]
    with loaded(board, clients=2) as load:
        done = play("site.yml", HOST, **wrong(tmp_path), stack_swap=swap)
    assert done.returncode == 2, done.stdout
    said = message(done)
    assert f"(llamacpp with smollm2-135m) failed: {reason}" in said
    assert words in said
    assert f"release {before} (ollama with smollm2-135m) serves again and was verified." in said
    assert load.wrong == []
    assert board.current()["number"] == before
    assert board.history()[-1]["outcome"] == "restored"
    again = play("site.yml", HOST)
    assert again.returncode == 0, again.stdout
    assert "changed=0" in again.stdout


def test_a_wrong_hash_touches_nothing(board: Board, tmp_path: Path) -> None:
    """Not even the file, which is right for the release that serves."""
    before = board.containers(), board.history(), board.run("ls", f"{FOLDER}/models")
    given = catalogue(tmp_path, "models.yml", "models/smollm2-135m/gguf/files/0/sha256", "0" * 64)
    done = play("site.yml", HOST, **given)
    assert done.returncode == 2, done.stdout
    said = message(done)
    assert f"and models.yml says sha256 {'0' * 64} and size 98362432." in said
    assert (board.containers(), board.history(), board.run("ls", f"{FOLDER}/models")) == before
    assert board.asked() == known_answers()["smollm2-135m"]


def test_a_port_in_use_is_reported_and_nothing_is_touched(board: Board) -> None:
    board.run("systemctl", "stop", SOCKETS_UNIT, SOCKETS_UNIT.replace(".socket", ".service"))
    # Chat APIs have the sockets as well.
    board.run("sh", "-c", "docker ps --format '{{.Names}}' | grep edge-llm-api | xargs docker stop")
    taker = "nohup python3 -m http.server 8000 >/dev/null 2>&1 & echo $! > /run/taker; sleep 1"
    board.run("sh", "-c", taker)
    before = board.containers()
    try:
        done = play("site.yml", HOST)
        assert done.returncode == 2, done.stdout
        assert "pi-01: port 8000 is in use by python3" in message(done)
        assert board.containers() == before
    finally:
        board.run("sh", "-c", "kill $(cat /run/taker); sleep 0.5")
        again = play("site.yml", HOST)
    assert again.returncode == 0, again.stdout
    assert board.asked() == known_answers()["smollm2-135m"]


def test_a_rollback_keeps_the_names_of_clients(board: Board) -> None:
    """Those that look like a service of this project's, in either slot."""
    names = ["gpt-api-b", "gpt-api-a", "edge-llm-engine-a", "engine-b"]
    for given in ({"llm_model_aliases": names}, {}):
        done = play("site.yml", HOST, **given)
        assert done.returncode == 0, done.stdout
    served = []
    for _ in range(2):
        done = play("playbooks/rollback.yml", HOST)
        assert done.returncode == 0, done.stdout
        served.append(board.models())
    with_names, without = served
    assert with_names == [*without[:1], *names]
    assert not set(names) & set(without)


_BOTH_FAIL = """
import sys
from pathlib import Path
sys.path[:0] = map(str, Path("/opt/edge-llm/lib").glob("edge_host-*.pyz"))
from edge_host.release import switch
from edge_host.release.host import Host
from edge_host.release.lock import lock_host
from edge_host.release.request import request_rollback
from edge_host.release.stage import stage_release
weights = Path("/opt/edge-llm/models/SmolLM2-135M-Instruct.Q4_1.gguf")
away = weights.with_suffix(".away")

def move_weights(step):
    if step == "stop":
        weights.rename(away)

def move_back():
    if sys.argv[1] == "once":
        away.rename(weights)

host = Host(on_step=move_weights)
switch.free_memory = move_back
with lock_host(host.root, "the tests"):
    request = request_rollback(host.releases, "the tests")
    request.metadata.update(swap="one-by-one", start_timeout=20)
    to = stage_release(host, request)
    result = switch.switch_release(host, to.number, "deploy")
print(result["outcome"])
"""


@pytest.fixture(scope="module")
def llamacpp_twice(board: Board) -> Any:
    """Both releases are llama.cpp's, which cannot start without the weights' file."""
    for given in ({"llm_context_size": 2048}, {}):
        assert play("site.yml", HOST, **given, llm_provider="llamacpp").returncode == 0
    yield
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout


def both_fail(how: str) -> str:
    done = subprocess.run(
        ["docker", "exec", "-i", CONTAINER, "python3", "-", how],
        input=_BOTH_FAIL, capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    return done.stdout.strip()


def test_a_rollback_that_fails_is_tried_again(board: Board, llamacpp_twice: None) -> None:
    assert both_fail("once") == "restored"
    assert board.asked() == known_answers()["smollm2-135m"]


def test_where_the_rollback_fails_twice_the_host_waits_for_help(
    board: Board, llamacpp_twice: None
) -> None:
    assert both_fail("always") == "failed"
    entry = board.history()[-1]
    assert entry["reason"].startswith("the engine ended while it started")
    assert entry["restore_reason"].startswith("the engine ended while it started")
    # Nobody is left who would end a hold.
    report = board.ready()
    assert (report["ready"], report["holding"]) == (False, False)
    # What the message says to type, once the cause is gone.
    models = f"{FOLDER}/models/SmolLM2-135M-Instruct.Q4_1"
    board.run("mv", f"{models}.away", f"{models}.gguf")
    board.run("systemctl", "restart", "edge-llm")
    assert board.asked() == known_answers()["smollm2-135m"]


@pytest.fixture(scope="module")
def two(board: Board) -> Iterator[None]:
    """The board has two releases that work."""
    two_releases(board, before="llamacpp")
    yield
    done = play("site.yml", HOST)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("how", ["killed", "power cut"])
@pytest.mark.parametrize("step", [step.value for step in ActivationStep])
def test_a_recovery_that_is_interrupted_is_run_again(
    board: Board, two: None, step: str, how: str
) -> None:
    """By systemd, or by the host's start. Just before `check` everything is the new one's."""
    assert change(board, "check", "one-by-one")
    board.run("rm", REACHED)
    with recovery_that_stops_at(board, step):
        kill(board)
        until(
            lambda: reached_step(board), f"the step {step} of the recovery", lambda at: at == step
        )
        if how == "power cut":
            restart("power-cut", board.name)
    if how == "killed":
        kill(board, SERVICE)
    assert_whole(board)
