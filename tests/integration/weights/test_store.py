"""What a host keeps of its weights, and what it hashes again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.integration.weights.conftest import (
    FAULTY,
    INVENTORY,
    SMOKE,
    SMOLLM,
    download_weights,
    shell,
    whole,
)
from tests.playing import alone_on, message, play

HOST = "stored"


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """The tests of faults are over, or have not begun."""
    with alone_on(FAULTY):
        yield


@pytest.fixture
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    """A deployment folder of the test's own."""
    name = f"/srv/{request.node.name.removeprefix('test_')[:40]}"
    shell(FAULTY, f"rm -rf {name}")
    yield name
    shell(FAULTY, f"rm -rf {name}")


def test_weights_are_removed_only_when_unused(root: str) -> None:
    """llm_models_keep: neither those of the last two releases, nor what is somebody's own."""
    assert download_weights(HOST, board_root=root, llm_model="smoke").returncode == 0
    shell(FAULTY, f"echo mine > {root}/models/own.gguf")
    assert download_weights(HOST, board_root=root, llm_models_keep=1).returncode == 0
    assert SMOKE.file in shell(FAULTY, f"ls {root}/models")
    releases = f"mkdir -p {root}/releases/0001 && ln -sfn releases/0001 {root}/previous"
    plan = {"model": {"files": [{"path": SMOKE.file}]}}
    release = json.dumps({"plan": plan, "slots": {"engine": "a", "api": "a"}})
    shell(FAULTY, f"{releases} && echo '{release}' > {root}/previous/release.json")
    done = download_weights(HOST, board_root=root, llm_models_keep=0)
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout
    assert SMOKE.file in shell(FAULTY, f"ls {root}/models")
    shell(FAULTY, f"rm {root}/previous")
    done = download_weights(HOST, board_root=root, llm_models_keep=0)
    assert done.returncode == 0, done.stdout
    assert sorted(shell(FAULTY, f"ls {root}/models").split()) == [
        SMOLLM.file,
        "ollama",
        "own.gguf",
    ]
    done = download_weights(HOST, board_root=root, llm_models_keep=0)
    assert "changed=0" in done.stdout


def test_weights_are_hashed_again_on_request(root: str) -> None:
    """And only there: the record vouches for gigabytes. What is wrong then is put aside."""
    assert download_weights(HOST, board_root=root).returncode == 0
    path = f"{root}/models/{SMOLLM.file}"
    spoil = f"printf X | dd of={path} bs=1 seek=90000000 conv=notrunc status=none"
    kept = "/srv/same"
    shell(FAULTY, f"cp -p {path} {kept} && {spoil} && touch -r {kept} {path}; rm {kept}")
    done = download_weights(HOST, board_root=root)
    assert "changed=0" in done.stdout
    done = download_weights(HOST, board_root=root, llm_models_rehash=True)
    assert done.returncode == 2
    assert f"It was renamed to {SMOLLM.file}.rejected" in message(done)
    done = download_weights(HOST, board_root=root)
    assert done.returncode == 0, done.stdout
    assert whole(FAULTY, root)


def test_a_check_run_reports_downloads(root: str) -> None:
    done = play("site.yml", HOST, "--tags", "weights", "--check", *INVENTORY, board_root=root)
    assert done.returncode == 0, done.stdout
    assert f"Would download {SMOLLM.bundle} (94 MiB) from http://198.18.41.3." in message(done)
    assert not shell(FAULTY, f"ls -d {root}", check=False).strip()
