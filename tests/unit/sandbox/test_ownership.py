"""What is not the sandbox's is left alone, and what is not the catalogue's is kept out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox import docker, images, models
from sandbox.errors import SandboxError
from sandbox.instance import LABEL


@pytest.mark.parametrize("kind", ["container", "image", "network", "volume"])
@pytest.mark.parametrize(
    ("labels", "whose"),
    [
        (None, "it has no label edge-llm.sandbox"),
        ({"other": "x"}, "it has no label edge-llm.sandbox"),
        ({LABEL: "test"}, "it carries edge-llm.sandbox=test"),
    ],
)
def test_a_name_that_somebody_else_uses_is_refused(
    monkeypatch: pytest.MonkeyPatch, kind: str, labels: dict[str, str] | None, whose: str
) -> None:
    found = {"Labels": labels, "Config": {"Labels": labels}}
    monkeypatch.setattr(docker, "inspect", lambda kind, name: found)
    with pytest.raises(SandboxError, match=f"the {kind} name 'pi-01'.*{whose}"):
        docker.ours(kind, "pi-01", "main")


@pytest.mark.parametrize("kind", ["container", "network"])
def test_ones_own_is_found_and_nothing_is_none(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    found: dict[str, Any] = {"Labels": {LABEL: "main"}, "Config": {"Labels": {LABEL: "main"}}}
    monkeypatch.setattr(docker, "inspect", lambda kind, name: found)
    assert docker.ours(kind, "pi-01", "main") is found
    monkeypatch.setattr(docker, "inspect", lambda kind, name: None)
    assert docker.ours(kind, "pi-01", "main") is None


def test_a_folder_with_a_mount_in_it_is_not_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    (folder / "chroot" / "dev").mkdir(parents=True)
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\ndevtmpfs {folder}/chroot/dev devtmpfs rw 0 0\n")
    with pytest.raises(SandboxError, match="chroot/dev is mounted inside"):
        images.remove_tree(folder, mounts)
    assert (folder / "chroot" / "dev").exists()
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\ntmpfs {folder}-too tmpfs rw 0 0\n")
    images.remove_tree(folder, mounts)
    assert not folder.exists()


def test_a_model_that_is_not_the_catalogues_does_not_get_into_the_hub(tmp_path: Path) -> None:
    unfinished = tmp_path / "model.part"
    unfinished.write_bytes(b"not the model")
    entry = {"file": "model.gguf", "size": 13, "sha256": "0" * 64}
    with pytest.raises(
        SandboxError, match=f"model.gguf has 13 bytes and sha256 .*says 13.*{'0' * 64}"
    ):
        models._finish(unfinished, tmp_path / "model.gguf", entry)
    assert not (tmp_path / "model.gguf").exists()
