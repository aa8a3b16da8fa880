"""Weights: verified, recorded, linked into Ollama's store; and each way in which that fails."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from edge_host.constants import RECORD, RECORD_LOCK
from edge_host.files import write_atomically
from edge_host.host_info.weights import read_models, read_ollama, read_record
from edge_host.weights.request import StoreError
from edge_host.weights.store import update_store

CONTENT = b"GGUF weights of a model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ASKED = {"file": "m.gguf", "size": len(CONTENT), "sha256": SHA256}
OLLAMA = {**ASKED, "name": "m", "family": "llama", "quantization": "Q4_1", "parameters": "135M"}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(CONTENT)
    return folder


def run(folder: Path, **arguments: Any) -> dict[str, Any]:
    return update_store(root=str(folder), **{"files": [ASKED], **arguments})


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """What of each path shows that it was written: mode, inode, size, time of change."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_ino,
            path.lstat().st_size,
            path.lstat().st_mtime_ns,
        )
        for path in [folder, *folder.rglob("*")]
    }


def modes(folder: Path) -> set[tuple[bool, int]]:
    """(is it a folder, its permissions) of all that is in a folder, but for the record's lock."""
    paths = [path for path in folder.rglob("*") if path.name != RECORD_LOCK]
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in paths}


def test_a_file_is_hashed_once(models: Path) -> None:
    first = run(models)
    assert first["changed"] is True
    assert first["hashed"] == ["m.gguf"]
    assert first["actions"] == [f"record m.gguf as verified, sha256 {SHA256}"]
    before = snapshot(models)
    assert run(models) == {"changed": False, "actions": [], "hashed": [], "missing": []}
    assert run(models, rehash=True) == {
        "changed": False,
        "actions": [],
        "hashed": ["m.gguf"],
        "missing": [],
    }
    assert snapshot(models) == before
    assert modes(models) == {(False, 0o644)}
    state = read_models(models)
    assert state["m.gguf"]["recorded_sha256"] == SHA256


def test_a_changed_file_is_hashed_again(models: Path) -> None:
    run(models)
    os.utime(models / "m.gguf", ns=(1, 1))
    assert run(models)["hashed"] == ["m.gguf"]


def test_the_record_of_other_files_is_kept(models: Path) -> None:
    run(models)
    shutil.copy(models / "m.gguf", models / "n.gguf")
    run(models, files=[{**ASKED, "file": "n.gguf"}])
    assert sorted(read_record(models)) == ["m.gguf", "n.gguf"]


def test_modes_are_corrected_whatever_the_umask(models: Path) -> None:
    (models / "m.gguf").chmod(0o600)
    models.chmod(0o700)
    before = os.umask(0o077)
    try:
        result = run(models, ollama=[OLLAMA])
    finally:
        os.umask(before)
    assert f"set mode 0644 of {models / 'm.gguf'} (was 0600)" in result["actions"]
    assert f"set mode 0755 of folder {models} (was 0700)" in result["actions"]
    assert modes(models) == {(False, 0o644), (True, 0o755)}
    assert stat.S_IMODE(models.stat().st_mode) == 0o755


def test_unfinished_downloads_are_left_alone(models: Path) -> None:
    partial = models / "m.gguf.partial"
    partial.write_bytes(b"half")
    partial.chmod(0o600)
    before = partial.stat()
    run(models, ollama=[OLLAMA])
    after = partial.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_ino) == (
        before.st_mode,
        before.st_mtime_ns,
        before.st_ino,
    )


def test_a_file_with_a_wrong_hash_is_renamed(models: Path) -> None:
    wrong = b"x" * len(CONTENT)
    (models / "m.gguf").write_bytes(wrong)
    found = hashlib.sha256(wrong).hexdigest()
    sentence = (
        f"{models}/m.gguf does not fit: its sha256 is {found}, and models.yml says {SHA256}. It was"
        " renamed to m.gguf.rejected. Run site.yml, which downloads it again; if that file has the"
        " wrong hash, too, correct the entry in models.yml or change llm_models_mirror"
    )
    with pytest.raises(StoreError, match=f"^{re.escape(sentence)}$"):
        run(models)
    assert not (models / "m.gguf").exists()
    assert (models / "m.gguf.rejected").read_bytes() == wrong


def test_damaged_content_is_removed_from_ollama(models: Path) -> None:
    """A block of the card went bad: neither size nor time tell, only reading it does."""
    run(models, ollama=[OLLAMA])
    path, status = models / "m.gguf", (models / "m.gguf").stat()
    with path.open("r+b") as stream:
        stream.write(b"X")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(models, ollama=[OLLAMA])["changed"] is False
    with pytest.raises(StoreError, match=r"m\.gguf does not fit: its sha256 is "):
        run(models, ollama=[OLLAMA], rehash=True)
    assert not (models / f"ollama/blobs/sha256-{SHA256}").exists()
    assert read_record(models) == {}
    assert read_ollama(models) == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, " is missing. Run site.yml, which downloads it"),
        (
            b"short",
            f" does not fit: it has 5 bytes, and models.yml says {len(CONTENT)}. Run site.yml,"
            " which downloads it again",
        ),
    ],
)
def test_a_file_that_is_missing_or_has_another_size(
    models: Path, content: bytes | None, problem: str
) -> None:
    path = models / "m.gguf"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=f"^{re.escape(f'{path}{problem}')}$"):
        run(models)
    before = snapshot(models)
    result = run(models, ollama=[OLLAMA], check=True)
    assert result["changed"] is True
    assert result["missing"] == ["m.gguf"]
    assert f"link sha256-{SHA256} to m.gguf" in result["actions"]
    assert snapshot(models) == before


def test_a_path_that_is_no_regular_file(models: Path) -> None:
    (models / "m.gguf").rename(models / "elsewhere.gguf")
    (models / "m.gguf").symlink_to("elsewhere.gguf")
    with pytest.raises(StoreError, match=r"m\.gguf is invalid: it is no regular file\. Remove it"):
        run(models)


def test_a_file_that_changes_while_it_is_hashed(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fsync = models / "m.gguf", os.fsync

    def write_meanwhile(descriptor: int) -> None:
        os.utime(path, ns=(1, 1))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", write_meanwhile)
    with pytest.raises(StoreError, match=r"it was changed while it was hashed\. Wait until"):
        run(models)
    assert not (models / RECORD).exists()


@pytest.mark.parametrize(
    "name", ["../m.gguf", "/etc/passwd", "a/b/m.gguf", "a/..", "..", "", "a\\b"]
)
def test_paths_outside_the_folder(models: Path, name: str) -> None:
    sentence = f"weights path {name!r} is invalid: it is no file in the models folder or in one"
    with pytest.raises(StoreError, match=f"^{re.escape(sentence)}"):
        run(models, files=[{**ASKED, "file": name}])


@pytest.mark.parametrize("name", [".verified.json", "m.gguf.partial", "m.gguf.rejected"])
def test_reserved_names(models: Path, name: str) -> None:
    with pytest.raises(
        StoreError, match=r"are reserved for files that are not verified\. Choose another"
    ):
        run(models, files=[{**ASKED, "file": name}])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"sha256": ""},
            "sha256 of m.gguf is invalid: ''. Set 64 hexadecimal digits in lower case",
        ),
        ({"sha256": SHA256.upper()}, "sha256 of m.gguf is invalid: '"),
        ({"sha256": SHA256 + "\n"}, "sha256 of m.gguf is invalid: '"),
        ({"size": 0}, "size of m.gguf is invalid: 0. Set the size in bytes"),
        ({"size": -1}, "size of m.gguf is invalid: -1. Set the size in bytes"),
    ],
)
def test_invalid_sizes_and_hashes(models: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StoreError, match=f"^{re.escape(sentence)}"):
        run(models, files=[{**ASKED, **change}])


@pytest.mark.parametrize("name", ["", "M", "../m", "a/b", "m:latest", ".m", "a" * 81, "m\n"])
def test_invalid_names_of_ollama_models(models: Path, name: str) -> None:
    with pytest.raises(
        StoreError, match=f"^name of the Ollama model is invalid: {re.escape(repr(name))}"
    ):
        run(models, ollama=[{**OLLAMA, "name": name}])


def test_an_ollama_model_without_its_file(models: Path) -> None:
    with pytest.raises(
        StoreError, match=r"weights of the Ollama model m are missing: 'files' has no m\.gguf"
    ):
        run(models, ollama=[{**OLLAMA, "sha256": "0" * 64}])
    assert not (models / "ollama").exists()


def test_a_relative_root() -> None:
    with pytest.raises(
        StoreError, match=r"^models folder 'models' is invalid: the path is not absolute"
    ):
        update_store(root="models")


def test_the_store_of_ollama(models: Path) -> None:
    assert run(models, ollama=[OLLAMA])["changed"] is True
    store = models / "ollama"
    blob = store / f"blobs/sha256-{SHA256}"
    assert blob.samefile(models / "m.gguf")
    manifest = json.loads((store / "manifests/registry.ollama.ai/library/m/latest").read_text())
    config_digest = manifest["config"]["digest"]
    config_blob = store / "blobs" / config_digest.replace(":", "-")
    assert manifest == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": f"sha256:{hashlib.sha256(config_blob.read_bytes()).hexdigest()}",
            "size": config_blob.stat().st_size,
        },
        "layers": [
            {
                "mediaType": "application/vnd.ollama.image.model",
                "digest": f"sha256:{SHA256}",
                "size": len(CONTENT),
            }
        ],
    }
    assert json.loads(config_blob.read_bytes()) == {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": "135M",
        "file_type": "Q4_1",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{SHA256}"]},
    }
    # Ollama takes each file in these folders for a blob or a manifest.
    assert sorted(path.name for path in (store / "blobs").iterdir()) == sorted(
        [blob.name, config_blob.name]
    )
    assert modes(models) == {(False, 0o644), (True, 0o755)}
    assert read_ollama(models) == {"m": [SHA256]}
    before = snapshot(models)
    assert run(models, ollama=[OLLAMA])["changed"] is False
    assert snapshot(models) == before


def test_a_blob_that_is_a_copy_becomes_a_link(models: Path) -> None:
    run(models, ollama=[OLLAMA])
    blob = models / f"ollama/blobs/sha256-{SHA256}"
    blob.unlink()
    blob.write_bytes(CONTENT)
    assert read_ollama(models) == {}
    assert run(models, ollama=[OLLAMA])["actions"] == [f"link sha256-{SHA256} to m.gguf"]
    assert blob.samefile(models / "m.gguf")
    assert (models / "m.gguf").stat().st_nlink == 2


@pytest.mark.parametrize("broken", ["manifest", "config"])
def test_an_incomplete_file_of_ollama_is_written_again(models: Path, broken: str) -> None:
    run(models, ollama=[OLLAMA])
    manifest = models / "ollama/manifests/registry.ollama.ai/library/m/latest"
    config = (
        models
        / "ollama/blobs"
        / json.loads(manifest.read_text())["config"]["digest"].replace(":", "-")
    )
    path = {"manifest": manifest, "config": config}[broken]
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    assert run(models, ollama=[OLLAMA])["actions"] == [f"write the {broken} of m"]
    assert path.read_bytes() == whole


def test_manifests_of_other_models_are_left_alone(models: Path) -> None:
    other = models / "ollama/manifests/registry.ollama.ai/library/other/latest"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    run(models, ollama=[OLLAMA])
    assert other.read_text() == "mine"
    assert read_ollama(models) == {"m": [SHA256]}


def test_check_mode_writes_nothing(models: Path) -> None:
    (models / "m.gguf").chmod(0o600)
    before = snapshot(models)
    checked = run(models, ollama=[OLLAMA], check=True)
    assert snapshot(models) == before
    assert checked["changed"] is True
    assert checked["hashed"] == ["m.gguf"]
    assert run(models, ollama=[OLLAMA])["actions"] == checked["actions"]


def test_check_mode_on_an_empty_host(tmp_path: Path) -> None:
    folder = tmp_path / "opt/models"
    checked = run(folder, ollama=[OLLAMA], check=True)
    assert checked["missing"] == ["m.gguf"]
    assert checked["actions"][0] == f"create folder {folder}"
    assert not folder.parent.exists()


def test_check_mode_does_not_rename(models: Path) -> None:
    (models / "m.gguf").write_bytes(b"x" * len(CONTENT))
    before = snapshot(models)
    with pytest.raises(StoreError, match=r"It would be renamed to m\.gguf\.rejected\. Run site"):
        run(models, check=True)
    assert snapshot(models) == before


def test_a_file_system_without_hard_links(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(
        StoreError, match=r"the file system refused a hard link to .* \(Operation not permitted\)"
    ):
        run(models, ollama=[OLLAMA])


def test_an_interrupted_write_leaves_what_was_there(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(models)
    before = snapshot(models)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(models / RECORD, b"{}", models)
    after = snapshot(models)
    assert after.pop(".")[:2] == before.pop(".")[:2]
    assert after == before
