"""site.yml as it is on arm64: a Raspberry Pi and a Jetson, but for their hardware.

A board is the project's own, from its first start to a swap of its engine; the tests of a board are
in the order in which its life goes on.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox import vm
from sandbox.instance import STATE
from tests.integration.engines.footprint import MIB, SMAPS, needed, resident, said
from tests.system.vm.conftest import Board, known_answer

FOLDER = STATE / "arm64"
INVENTORY = "tests/system/arm64/hosts.yml"
CMDLINE = f"/{vm.CMDLINE}"
OFF, ON = "cgroup_disable=memory", "cgroup_enable=memory"


def switched_on(kind: vm.Kind) -> Iterator[Board]:
    """A board as it comes."""
    made = vm.disk(kind)
    assert made.folder.exists(), f"{made.folder} is not there: run `python -m sandbox arm64`."
    folder = FOLDER / kind.name
    if folder.exists():
        shutil.rmtree(folder)
    machine = vm.Machine(made, folder, vm.accelerator(made))
    machine.write_down()
    # Its cmdline.txt is read from the file, which therefore is a plain one.
    disk = folder / "disk.raw"
    subprocess.run(["cp", "--sparse=always", str(made.image), str(disk)], check=True)
    machine.switch_on(disk)
    try:
        machine.wait_for_ssh()
        machine.wait_for_docker()
        yield Board(machine, INVENTORY)
    finally:
        machine.cut()
        disk.unlink()


@pytest.fixture(scope="module")
def pi() -> Iterator[Board]:
    yield from switched_on(vm.PI)


@pytest.fixture(scope="module")
def jetson() -> Iterator[Board]:
    yield from switched_on(vm.JETSON)


def facts(board: Board) -> dict[str, Any]:
    """What site.yml read of a board last."""
    state = json.loads((board.machine.folder / "facts.json").read_text())
    found: dict[str, Any] = state["board"]
    return found


def played(board: Board, variables: dict[str, object] | None = None) -> str:
    """What site.yml said, which went well; its report is shown."""
    status, said = board.play(variables)
    assert status == 0, said
    print(said[said.rindex("PLAY [Report]") :], flush=True)
    return said


def serves(board: Board, provider: str) -> None:
    """Hold a board to what it serves: its engine, for its own architecture, and its answer."""
    assert board.asked() == known_answer()
    env = board.machine.run("cat /opt/edge-llm/.env").stdout
    assert f"LLM_PROVIDER={provider}" in env.splitlines()
    built_for = (
        "docker ps -q | xargs docker inspect -f '{{.Image}}'"
        " | xargs docker image inspect -f '{{.Architecture}}'"
    )
    assert board.machine.run(built_for).stdout.split() == ["arm64"] * 3


def test_a_pi_starts_with_its_memory_cgroup_off(pi: Board) -> None:
    assert pi.machine.run("uname -m").stdout.strip() == "aarch64"
    assert OFF in pi.machine.run("cat /proc/cmdline").stdout.split()
    assert "memory" not in pi.machine.run("cat /sys/fs/cgroup/cgroup.controllers").stdout.split()


def test_site_yml_on_a_pi(pi: Board) -> None:
    boot = pi.machine.run("cat /proc/sys/kernel/random/boot_id").stdout
    played(pi)
    board = facts(pi)
    assert (board["kind"], board["name"], board["arch"]) == ("pi", "Raspberry Pi 5", "aarch64")
    # The fix is proven by the start that followed it.
    assert pi.machine.run("cat /proc/sys/kernel/random/boot_id").stdout != boot
    words = pi.machine.run("cat /proc/cmdline").stdout.split()
    assert ON in words
    assert OFF not in words
    assert "memory" in pi.machine.run("cat /sys/fs/cgroup/cgroup.controllers").stdout.split()
    assert pi.machine.run(f"cat {CMDLINE}").stdout.split() == words
    backups = pi.machine.run(f"cat {CMDLINE}.*").stdout
    assert OFF in backups.split()
    serves(pi, "ollama")
    limit = "docker inspect -f '{{.HostConfig.Memory}}' $(docker ps -q --filter name=engine)"
    assert int(pi.machine.run(limit).stdout) > 0


def test_a_second_run_on_a_pi(pi: Board) -> None:
    said = played(pi)
    assert "changed=0" in said, said


def test_a_swap_on_a_pi(pi: Board) -> None:
    played(pi, {"llm_provider": "llamacpp"})
    serves(pi, "llamacpp")


@pytest.mark.parametrize("provider", ["llamacpp", "ollama"])
def test_the_estimate_of_memory_on_a_pi(pi: Board, provider: str) -> None:
    """A Cortex-A76 keeps SmolLM2's embedding table twice: it is the output layer, too."""
    played(pi, {"llm_provider": provider, "llm_model": "smollm2-135m"})
    assert facts(pi)["cpu_features"] == ["asimddp"]
    release = json.loads(pi.machine.run("cat /opt/edge-llm/current/release.json").stdout)
    plan = release["plan"]["memory"]
    assert plan["repacking"] == pytest.approx(28.7 * MIB, rel=0.01)
    engine = "$(docker ps -q --filter name=edge-llm-engine)"
    log = pi.machine.run(f"docker logs {engine} 2>&1").stdout
    smaps = pi.machine.run(f"docker exec {engine} bash -c {shlex.quote(SMAPS)}").stdout
    real = needed(log, resident(smaps.splitlines()))
    print(f"{provider}: {plan}, and {real / MIB:.1f} MiB", flush=True)
    assert plan["weights"] + plan["repacking"] == pytest.approx(said(log, "model"), rel=0.1)
    assert plan["kv_cache"] == pytest.approx(said(log, "KV"), rel=0.1)
    assert plan["compute"] == pytest.approx(said(log, "compute"), rel=0.1)
    # A short prompt leaves a part of the compute buffers untouched.
    untouched = said(log, "compute")
    assert real * 0.9 <= plan["total"] - plan["system"] <= (real + untouched) * 1.1


def test_site_yml_on_a_jetson(jetson: Board) -> None:
    played(jetson)
    board = facts(jetson)
    assert (board["kind"], board["name"], board["arch"]) == ("jetson", "Jetson Orin NX", "aarch64")
    assert board["l4t"]["text"] == "36.4.3"
    serves(jetson, "llamacpp")


def test_a_second_run_on_a_jetson(jetson: Board) -> None:
    said = played(jetson)
    assert "changed=0" in said, said


def test_a_swap_on_a_jetson(jetson: Board) -> None:
    played(jetson, {"llm_provider": "ollama"})
    serves(jetson, "ollama")


def test_layers_that_stay_on_the_cpu_fail_a_jetson(jetson: Board) -> None:
    """The gate, on a board without a GPU: what serves goes on."""
    status, said = jetson.play({"llm_provider": "llamacpp", "llm_gpu_required": True})
    assert status == 2
    assert "2 of 2 layers were asked onto the GPU, and the engine" in " ".join(said.split())
    serves(jetson, "ollama")
