"""The store of weights on a host: verified once, recorded, and linked into Ollama's store.

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

from ..constants import MODELS, OLLAMA_LIBRARY, RECORD, RECORD_LOCK
from ..files import read_text, sync_folder, write_atomically
from ..foreign import UnsafeFileError, check_not_written, give
from ..host_info.deployment import read_release
from ..host_info.weights import is_own, parse_manifest, read_record, recorded_sha256
from .ollama_store import build_config, build_manifest, list_layers
from .request import OllamaModel, StoreError, WeightsFile, parse_ollama_model, parse_weights_file

FILE_MODE = 0o644
FOLDER_MODE = 0o755


def read_release_files(root: Path, link: str) -> List[Mapping[str, Any]]:
    """Return the weights files (path, size, sha256) of the release that a link in the root names.

    `link` is `current` or `previous`.
    """
    plan = (read_release(root, link) or {}).get("plan") or {}
    files: List[Mapping[str, Any]] = (plan.get("model") or {}).get("files") or []
    return files


class Store:
    """The models folder of one host.

    With `check_mode` the methods report what they would do and write nothing. After the calls,
    `actions` has a line for each thing written (or, in check mode, to be written), `hashed` the
    files that were read completely, and `missing` the files that check mode found absent or of
    another size.
    """

    def __init__(self, root: Path, check_mode: bool = False, rehash: bool = False) -> None:
        self.root = root
        self.ollama = root / "ollama"
        self.check_mode = check_mode
        self.rehash = rehash
        self.record = read_record(root)
        self.actions: List[str] = []
        self.hashed: List[str] = []
        self.missing: List[str] = []
        self._seen_folders: Set[Path] = set()

    # Verification, and its record.

    def verify(self, file: WeightsFile) -> None:
        """Verify a file, by the record or by hashing its content. Raises StoreError."""
        path = self.root / file.path
        try:
            status = path.lstat()
        except FileNotFoundError:
            status = None
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise StoreError(
                f"{path} is invalid: it is no regular file. Remove it, and run site.yml again"
            )
        if status is None or status.st_size != file.size:
            if self.check_mode:  # check mode leaves out the step that downloads it
                self.missing.append(file.path)
                self.actions.append(f"record {file.path} as verified, once it is downloaded")
                return
            if status is None:
                raise StoreError(f"{path} is missing. Run site.yml, which downloads it")
            raise StoreError(
                f"{path} does not fit: it has {status.st_size} bytes, and models.yml says"
                f" {file.size}. Run site.yml, which downloads it again"
            )
        recorded = recorded_sha256(self.record, file.path, status)
        if self.rehash or not is_own(status) or recorded != file.sha256:
            self._verify_content(path, file)
        self._set_file_mode(path, status.st_mode)

    def _verify_content(self, path: Path, file: WeightsFile) -> None:
        """Hash a file and record it as verified; reject it where the hash is wrong."""
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            before = os.fstat(stream.fileno())
            if not is_own(before):
                self._make_own(path, stream.fileno(), before)
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
            if not self.check_mode:
                # The record survives a power cut, so the content that it is about must do so, too.
                os.fsync(stream.fileno())
            after = os.fstat(stream.fileno())
        self.hashed.append(file.path)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise StoreError(
                f"{path} is invalid: it was changed while it was hashed. Wait until no program"
                " writes to it, and run site.yml again"
            )
        found = digest.hexdigest()
        if found != file.sha256:
            self._reject(path, file, found)
        if self.recorded_hash(file) != found:
            self.actions.append(f"record {file.path} as verified, sha256 {found}")
            if not self.check_mode:
                self.record_verified(file)

    def _make_own(self, path: Path, descriptor: int, status: os.stat_result) -> None:
        """Make a file root's that somebody has copied there, so that nobody can change it."""
        self.actions.append(f"set owner 0 of {path} (was {status.st_uid})")
        if self.check_mode:
            return
        try:
            give(descriptor, 0, 0, FILE_MODE)
        except PermissionError as error:
            raise StoreError(
                f"{path} does not fit: it belongs to the user {status.st_uid}, who could change it,"
                f" and its file system does not let root have it ({error.strerror}). Use a models"
                " folder on a file system with owners, such as ext4"
            ) from None
        try:
            check_not_written(descriptor, path)
        except UnsafeFileError as error:
            raise StoreError(str(error)) from None

    def _reject(self, path: Path, file: WeightsFile, found: str) -> None:
        """Rename a file with the wrong content, so that nothing serves it. Raises StoreError."""
        rejected = path.with_name(path.name + ".rejected")
        problem = f"{path} does not fit: its sha256 is {found}, and models.yml says {file.sha256}"
        for link in ("current", "previous"):
            if any(
                (each["path"], each["sha256"]) == (file.path, found)
                for each in read_release_files(self.root.parent, link)
            ):
                raise StoreError(
                    f"{problem}. The file stays, because the {link} release uses it. Correct the"
                    " entry in models.yml"
                )
        if self.check_mode:
            raise StoreError(
                f"{problem}. It would be renamed to {rejected.name}. Run site.yml, which downloads"
                " it again"
            )
        blob = self._blob_path(file.sha256)
        linked = blob.exists() and blob.samefile(path)
        path.replace(rejected)
        sync_folder(self.root)
        if linked:  # the name of a blob is its hash
            blob.unlink()
            sync_folder(blob.parent)
        self._write_record(file.path, None)
        raise StoreError(
            f"{problem}. It was renamed to {rejected.name}. Run site.yml, which downloads it again;"
            " if that file has the wrong hash, too, correct the entry in models.yml or change"
            " llm_models_mirror"
        )

    def install(self, downloaded: Path, file: WeightsFile) -> None:
        """Give a downloaded file, whose hash was right, its final name in one step, and record it.

        Raises StoreError where another verified file has that name.
        """
        path = self.root / file.path
        self._ensure_folder(path.parent)
        other = self.recorded_hash(file)
        if other not in (None, file.sha256):
            raise StoreError(
                f"{path} does not fit: it is a verified file with sha256 {other}, and models.yml"
                f" says {file.sha256}. Remove or rename the file, and run site.yml again"
            )
        downloaded.replace(path)
        sync_folder(path.parent)
        self.record_verified(file)

    def recorded_hash(self, file: WeightsFile) -> Optional[str]:
        """Return the hash in the record, if the file has the recorded size and time of change."""
        return self._recorded_hash(file.path, self.root / file.path)

    def recorded_hash_outside(self, path: Path) -> Optional[str]:
        """Return the same for a file outside the models folder."""
        return self._recorded_hash(str(path), path)

    def _recorded_hash(self, name: str, path: Path) -> Optional[str]:
        try:
            return recorded_sha256(self.record, name, path.lstat())
        except OSError:
            return None

    def record_verified(self, file: WeightsFile) -> None:
        """Record a file as verified: it was hashed, and its hash was right."""
        self._record_verified(file.path, self.root / file.path, file.sha256, file.bundle)

    def record_verified_outside(self, path: Path, sha256: str) -> None:
        """Record a file outside the models folder as verified."""
        self._record_verified(str(path), path, sha256)

    def _record_verified(self, name: str, path: Path, sha256: str, bundle: str = "") -> None:
        status = path.stat()
        entry: Dict[str, Any] = {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "sha256": sha256,
        }
        if bundle:
            entry["bundle"] = bundle
        if self.record.get(name) != entry:
            self._write_record(name, entry)

    def _write_record(self, name: str, entry: Optional[Dict[str, Any]]) -> None:
        """Write the record with the entry of one file replaced, or removed where it is None."""
        # Another model may be downloaded at the same time: the lock protects the record. It is not
        # on the folder, which the engine may read: who may read may lock.
        descriptor = os.open(self.root / RECORD_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self.record = read_record(self.root)
            if entry is None:
                if self.record.pop(name, None) is None:
                    return
            else:
                self.record[name] = entry
            content = json.dumps(self.record, indent=1, sort_keys=True).encode() + b"\n"
            write_atomically(self.root / RECORD, content, self.root)
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """Remove a verified file, unless the current or the previous release uses it.

        Ollama's link to it is removed, too: the file would still take its space.
        """
        entry = self.record.get(name)
        path = self.root / name
        if entry is None or not path.exists():
            return
        for link in ("current", "previous"):
            if any(each["path"] == name for each in read_release_files(self.root.parent, link)):
                return
        self.actions.append(f"remove {name}")
        if self.check_mode:
            return
        library = self.ollama / OLLAMA_LIBRARY
        for manifest in library.glob("*/latest"):
            parsed = parse_manifest(read_text(manifest) or "")
            if parsed and entry["sha256"] in parsed[1]:
                manifest.unlink()
                manifest.parent.rmdir()
        self._blob_path(str(entry["sha256"])).unlink(missing_ok=True)
        path.unlink()
        if path.parent != self.root and not any(path.parent.iterdir()):
            path.parent.rmdir()
        self._write_record(name, None)

    # Ollama's store.

    def add_to_ollama(self, model: OllamaModel) -> None:
        """Make a model known to Ollama: link, config blob, manifest, in that order.

        Ollama may read its store at any moment, so the manifest is written after the files that it
        names. Raises StoreError.
        """
        manifest = self.ollama / OLLAMA_LIBRARY / model.name / "latest"
        config = build_config(model)
        config_blob = self._blob_path(hashlib.sha256(config).hexdigest())
        self._ensure_folder(config_blob.parent)
        self._ensure_folder(manifest.parent)
        for _, weights in list_layers(model):
            self._link_blob(weights)
        self._ensure_content(config_blob, config, f"config of {model.name}")
        self._ensure_content(manifest, build_manifest(model), f"manifest of {model.name}")

    def _blob_path(self, sha256: str) -> Path:
        """Return the path at which Ollama has the content with that hash."""
        return self.ollama / "blobs" / f"sha256-{sha256}"

    def _link_blob(self, weights: WeightsFile) -> None:
        """Make the blob a hard link to the weights file, so that no second copy exists."""
        path, blob = self.root / weights.path, self._blob_path(weights.sha256)
        if weights.path not in self.missing and blob.exists() and blob.samefile(path):
            return
        self.actions.append(f"link {blob.name} to {weights.path}")
        if self.check_mode:
            return
        link = self.ollama / f".new-{weights.sha256}"
        link.unlink(missing_ok=True)
        try:
            os.link(path, link)
        except OSError as error:
            raise StoreError(
                f"{blob} is missing: the file system refused a hard link to {path}"
                f" ({error.strerror}). Use a models folder on one file system that has hard links,"
                " such as ext4"
            ) from error
        link.replace(blob)
        sync_folder(blob.parent)

    def _ensure_content(self, path: Path, content: bytes, description: str) -> None:
        """Write a small file where its content differs; its mode becomes 0644."""
        try:
            status = path.stat()
            same = path.read_bytes() == content
        except FileNotFoundError:
            same = False
        if same:
            self._set_file_mode(path, status.st_mode)
            return
        self.actions.append(f"write the {description}")
        if not self.check_mode:
            # Not staged beside it: Ollama takes every file in its folders for a blob or a manifest.
            write_atomically(path, content, self.ollama)

    # Folders and modes.

    def ensure_root(self) -> None:
        """Create the models folder where it is missing, readable by the containers' user."""
        self._ensure_folder(self.root)

    def _ensure_folder(self, path: Path) -> None:
        """Create a folder below the root, and those above it, readable by the containers' user."""
        if path in self._seen_folders:
            return
        self._seen_folders.add(path)
        if path != self.root:
            self._ensure_folder(path.parent)
        try:
            status = path.stat()
        except FileNotFoundError:
            self.actions.append(f"create folder {path}")
            if not self.check_mode:
                path.mkdir(parents=path == self.root)
                path.chmod(FOLDER_MODE)
                sync_folder(path.parent)
            return
        mode = stat.S_IMODE(status.st_mode)
        if not is_own(status):
            self.actions.append(f"set owner 0 of folder {path} (was {status.st_uid})")
            if not self.check_mode:
                os.chown(path, 0, 0)
        if mode != FOLDER_MODE:
            self.actions.append(f"set mode {FOLDER_MODE:04o} of folder {path} (was {mode:04o})")
            if not self.check_mode:
                path.chmod(FOLDER_MODE)

    def _set_file_mode(self, path: Path, mode: int) -> None:
        """Set mode 0644 where the file has another (`mode`)."""
        if stat.S_IMODE(mode) != FILE_MODE:
            self.actions.append(
                f"set mode {FILE_MODE:04o} of {path} (was {stat.S_IMODE(mode):04o})"
            )
            if not self.check_mode:
                path.chmod(FILE_MODE)


def update_store(
    root: str = MODELS,
    files: Sequence[Mapping[str, Any]] = (),
    ollama: Sequence[Mapping[str, Any]] = (),
    rehash: bool = False,
    check: bool = False,
    remove: Sequence[str] = (),
) -> Dict[str, Any]:
    """Verify files, make models known to Ollama, remove others; see `library/model_store.py`.

    Returns {"changed": bool, "actions": [str], "hashed": [str], "missing": [str]}. Raises
    StoreError for an invalid request, or where the store cannot be brought to that state.
    """
    folder = Path(root)
    if not folder.is_absolute():
        raise StoreError(
            f"models folder {root!r} is invalid: the path is not absolute. Set an absolute path"
            f" such as {MODELS}"
        )
    requested = [parse_weights_file(entry) for entry in files]
    models = [parse_ollama_model(entry, requested) for entry in ollama]
    store = Store(folder, check, rehash)
    store.ensure_root()
    for file in requested:
        store.verify(file)
    for model in models:
        store.add_to_ollama(model)
    for name in set(remove) - {file.path for file in requested}:
        store.remove(name)
    return {
        "changed": bool(store.actions),
        "actions": store.actions,
        "hashed": store.hashed,
        "missing": store.missing,
    }
