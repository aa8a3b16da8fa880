"""Weights on a host: verified once, recorded, and linked into Ollama's store.

A file counts as verified when it has the size and SHA-256 of the catalogue. Hashing a large file
takes a minute on a small board, so the hash is recorded with the file's size and modification time,
and the file is read again only when one of them differs or the caller asks for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set

from ..constants import MODELS, OLLAMA_LIBRARY, RECORD
from ..files import read_text, sync_folder, write_atomically
from ..host_info.deployment import read_release
from ..host_info.weights import parse_manifest, read_record, recorded_sha256
from .asked import OllamaModel, StoreError, Weights, parse_ollama, parse_weights
from .ollama_store import ollama_config, ollama_layers, ollama_manifest

FILE_MODE = 0o644
FOLDER_MODE = 0o755


def release_files(root: Path, link: str) -> List[Mapping[str, Any]]:
    """The files of weights of the current or the previous release: path, size and sha256 each."""
    plan = (read_release(root, link) or {}).get("plan") or {}
    found: List[Mapping[str, Any]] = (plan.get("model") or {}).get("files") or []
    return found


class Store:
    """The models folder of one host, brought to what is asked.

    `check` reports what would be done and writes nothing. After the calls, `actions` holds a line
    for each thing written (or, in check mode, to be written), `hashed` the files read whole,
    `missing` the files that check mode found absent or of another size.
    """

    def __init__(self, root: Path, check: bool = False, rehash: bool = False) -> None:
        self.root = root
        self.ollama = root / "ollama"
        self.check = check
        self.rehash = rehash
        self.record = read_record(root)
        self.actions: List[str] = []
        self.hashed: List[str] = []
        self.missing: List[str] = []
        self.folders: Set[Path] = set()  # those that were looked at

    def ensure_folder(self, path: Path) -> None:
        """Make a folder below the root, and those above it, readable by the containers' user."""
        if path in self.folders:
            return
        self.folders.add(path)
        if path != self.root:
            self.ensure_folder(path.parent)
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            self.actions.append(f"folder {path}")
            if not self.check:
                path.mkdir(parents=path == self.root)
                path.chmod(FOLDER_MODE)
                sync_folder(path.parent)
            return
        if mode != FOLDER_MODE:
            self.actions.append(f"mode {FOLDER_MODE:04o} of folder {path}, which was {mode:04o}")
            if not self.check:
                path.chmod(FOLDER_MODE)

    def ensure_file_mode(self, path: Path, mode: int) -> None:
        """Give a file mode 0644 where it has another."""
        if stat.S_IMODE(mode) != FILE_MODE:
            self.actions.append(
                f"mode {FILE_MODE:04o} of {path}, which was {stat.S_IMODE(mode):04o}"
            )
            if not self.check:
                path.chmod(FILE_MODE)

    def write_record(self, name: str, entry: Optional[Dict[str, Any]]) -> None:
        """Write the record with the entry of one file replaced, or dropped where it is None."""
        # Another model may be coming at the same time: the folder itself is the lock.
        alone = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(alone, fcntl.LOCK_EX)
            self.record = read_record(self.root)
            if entry is None:
                if self.record.pop(name, None) is None:
                    return
            else:
                self.record[name] = entry
            content = json.dumps(self.record, indent=1, sort_keys=True).encode() + b"\n"
            write_atomically(self.root / RECORD, content, self.root)
        finally:
            os.close(alone)

    def recorded(self, asked: Weights) -> Optional[str]:
        """The hash that was found when a file was hashed, as long as it is as it was then."""
        return self._recorded(asked.file, self.root / asked.file)

    def recorded_elsewhere(self, path: Path) -> Optional[str]:
        """The same of a file that is not in the folder."""
        return self._recorded(str(path), path)

    def _recorded(self, name: str, path: Path) -> Optional[str]:
        try:
            return recorded_sha256(self.record, name, path.lstat())
        except OSError:
            return None

    def vouch(self, asked: Weights) -> None:
        """Record that a file has been hashed, and is what is asked."""
        self._vouch(asked.file, self.root / asked.file, asked.sha256, asked.bundle)

    def vouch_elsewhere(self, path: Path, sha256: str) -> None:
        """The same of a file that is not in the folder."""
        self._vouch(str(path), path, sha256)

    def _vouch(self, name: str, path: Path, sha256: str, bundle: str = "") -> None:
        status = path.stat()
        entry: Dict[str, Any] = {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "sha256": sha256,
        }
        if bundle:
            entry["bundle"] = bundle
        if self.record.get(name) != entry:
            self.write_record(name, entry)

    def adopt(self, arrived: Path, asked: Weights, keep: bool) -> None:
        """Give a file that has come, and has been hashed, its name in one step; `keep` leaves its
        other name, too.
        """
        path = self.root / asked.file
        self.ensure_folder(path.parent)
        other = self.recorded(asked)
        if other not in (None, asked.sha256):
            raise StoreError(
                f"{path}: a file with sha256 {asked.sha256} has come for it, and there is another"
                f" one, verified with {other}; remove or rename that"
            )
        if keep:
            fresh = arrived.parent.parent / f".new-{asked.sha256}"
            fresh.unlink(missing_ok=True)
            os.link(arrived, fresh)
            arrived = fresh
        arrived.replace(path)
        sync_folder(path.parent)
        self.vouch(asked)

    def verify(self, asked: Weights) -> None:
        """Make sure that a file is what is asked, from the record or by reading all of it."""
        path = self.root / asked.file
        try:
            status = path.lstat()
        except FileNotFoundError:
            status = None
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{path}: a regular file is asked; found is something else: remove it")
        if status is None or status.st_size != asked.size:
            if self.check:  # an earlier step, which check mode left out, would have fetched it
                self.missing.append(asked.file)
                self.actions.append(f"record of {asked.file}, once it is there")
                return
            found = "no such file" if status is None else f"one of {status.st_size} bytes"
            raise StoreError(
                f"{path}: a file of {asked.size} bytes is asked; found is {found}: fetch it again"
            )
        recorded = None if self.rehash else recorded_sha256(self.record, asked.file, status)
        if recorded != asked.sha256:
            self.verify_content(path, asked)
        self.ensure_file_mode(path, status.st_mode)

    def verify_content(self, path: Path, asked: Weights) -> None:
        """Hash a file and record the result; put it aside and raise StoreError if it is wrong."""
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            before = os.fstat(stream.fileno())
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
            if not self.check:
                # The record outlives a power cut, so what it vouches for must do so too.
                os.fsync(stream.fileno())
            after = os.fstat(stream.fileno())
        self.hashed.append(asked.file)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise StoreError(f"{path}: it changed while it was read; let its download end first")
        found = digest.hexdigest()
        if found != asked.sha256:
            self.reject(path, asked, found)
        if self.recorded(asked) != found:
            self.actions.append(f"record of {asked.file}, sha256 {found}")
            if not self.check:
                self.vouch(asked)

    def reject(self, path: Path, asked: Weights, found: str) -> None:
        """Put a file with the wrong content where nothing serves it, and raise StoreError."""
        aside = path.with_name(path.name + ".rejected")
        told = f"{path}: sha256 {asked.sha256} is asked; found is {found}"
        for link in ("current", "previous"):
            if any(
                (each["path"], each["sha256"]) == (asked.file, found)
                for each in release_files(self.root.parent, link)
            ):
                raise StoreError(
                    f"{told}, which the {link} release serves, so it stays; repair the entry in"
                    " models.yml"
                )
        if self.check:
            raise StoreError(f"{told}: it would be renamed to {aside.name}; fetch it again")
        blob = self.blob(asked.sha256)
        linked = blob.exists() and blob.samefile(path)
        path.replace(aside)
        sync_folder(self.root)
        if linked:  # a blob's name vouches for its content
            blob.unlink()
            sync_folder(blob.parent)
        self.write_record(asked.file, None)
        raise StoreError(
            f"{told}: it was renamed to {aside.name}; fetch it again, and if that gives the same, "
            "the catalogue or the place it comes from is wrong"
        )

    def remove(self, name: str) -> None:
        """Remove verified weights that no release uses which the host could go back to.

        Ollama's link to them goes as well, or they would still take their room.
        """
        entry = self.record.get(name)
        path = self.root / name
        if entry is None or not path.exists():
            return
        for link in ("current", "previous"):
            if any(each["path"] == name for each in release_files(self.root.parent, link)):
                return
        self.actions.append(f"remove {name}")
        if self.check:
            return
        library = self.ollama / OLLAMA_LIBRARY
        for manifest in library.glob("*/latest"):
            named = parse_manifest(read_text(manifest) or "")
            if named and entry["sha256"] in named[1]:
                manifest.unlink()
                manifest.parent.rmdir()
        self.blob(str(entry["sha256"])).unlink(missing_ok=True)
        path.unlink()
        if path.parent != self.root and not any(path.parent.iterdir()):
            path.parent.rmdir()
        self.write_record(name, None)

    def blob(self, sha256: str) -> Path:
        """Where Ollama looks for content with that hash."""
        return self.ollama / "blobs" / f"sha256-{sha256}"

    def offer(self, model: OllamaModel) -> None:
        """Make a model known to Ollama: link, config blob, manifest, in that order.

        Ollama may read the store at any moment, so a manifest comes after all that it names.
        """
        manifest = self.ollama / OLLAMA_LIBRARY / model.name / "latest"
        config = ollama_config(model)
        config_blob = self.blob(hashlib.sha256(config).hexdigest())
        self.ensure_folder(config_blob.parent)
        self.ensure_folder(manifest.parent)
        for _, weights in ollama_layers(model):
            self.link(weights)
        self.ensure_content(config_blob, config, f"config of {model.name}")
        self.ensure_content(manifest, ollama_manifest(model), f"manifest of {model.name}")

    def link(self, weights: Weights) -> None:
        """Have the blob be the file itself, by a hard link: no second copy of the weights."""
        path, blob = self.root / weights.file, self.blob(weights.sha256)
        if weights.file not in self.missing and blob.exists() and blob.samefile(path):
            return
        self.actions.append(f"link {blob.name} to {weights.file}")
        if self.check:
            return
        fresh = self.ollama / f".new-{weights.sha256}"
        fresh.unlink(missing_ok=True)
        try:
            os.link(path, fresh)
        except OSError as error:
            raise StoreError(
                f"{blob}: a hard link to {path} is asked; the file system says: {error.strerror}. "
                "Accepted is a models folder on one file system that has hard links, such as ext4"
            ) from error
        fresh.replace(blob)
        sync_folder(blob.parent)

    def ensure_content(self, path: Path, content: bytes, what: str) -> None:
        """Have a small file with that content and mode 0644."""
        try:
            status = path.stat()
            same = path.read_bytes() == content
        except FileNotFoundError:
            same = False
        if same:
            self.ensure_file_mode(path, status.st_mode)
            return
        self.actions.append(what)
        if not self.check:
            # Not made beside it: Ollama takes every file in its folders for a blob or a manifest.
            write_atomically(path, content, self.ollama)


def place(
    root: str = MODELS,
    files: Sequence[Mapping[str, Any]] = (),
    ollama: Sequence[Mapping[str, Any]] = (),
    rehash: bool = False,
    check: bool = False,
    remove: Sequence[str] = (),
) -> Dict[str, Any]:
    """Verify files, offer Ollama models, remove others; see `library/model_store.py`.

    Returns {"changed": bool, "actions": [str], "hashed": [str], "missing": [str]}. Raises
    StoreError, with a sentence, for what is asked wrongly or is not as asked.
    """
    folder = Path(root)
    if not folder.is_absolute():
        raise StoreError(f"root: {root!r} is asked; accepted is an absolute path such as {MODELS}")
    asked = [parse_weights(entry) for entry in files]
    models = [parse_ollama(entry, asked) for entry in ollama]
    store = Store(folder, check, rehash)
    store.ensure_folder(folder)
    for weights in asked:
        store.verify(weights)
    for model in models:
        store.offer(model)
    for name in set(remove) - {weights.file for weights in asked}:
        store.remove(name)
    return {
        "changed": bool(store.actions),
        "actions": store.actions,
        "hashed": store.hashed,
        "missing": store.missing,
    }
