"""The releases of this project on the host, and who changes it."""

from __future__ import annotations

import fcntl
import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import Any, Dict, List, Mapping, Optional

from ..constants import (
    DEPLOYED_FILES,
    HISTORY,
    JOURNAL,
    LOCK,
    PLAIN_KEYS,
    PLANNED_OPTIONS,
    RELEASE,
    RELEASES,
)
from ..files import read_file, read_json, read_text
from ..folders import secret_access
from ..json_data import Facts, parse_json
from .docker import select_options

_SHA256_OF_NOTHING = hashlib.sha256(b"").hexdigest()
_PLAIN_KEYS_LINE = re.compile(rf"(?m)^ *CHAT_API_KEYS_FILE: /run/secrets/{PLAIN_KEYS}$")
# Names in the history -> in results. The history keeps its names: other versions read it.
_RESULT_NAMES = {
    "as": "rolled_back_to",
    "beside": "side_by_side",
    "by": "operator",
    "parts": "changed_parts",
    "pause": "pause_seconds",
}


def read_secrets(folder: Path, expected: Mapping[str, str]) -> Dict[str, bool]:
    """Whether each file exists with its sha256, owner, group and mode (`folders.secret_access`).

    A file may be in a folder ("tls/key.pem"). An empty sha256 stands for any content but none: a
    secret that only the host knows.
    """
    answers = {}
    for name, sha256 in expected.items():
        found, access = read_file(folder / _check_secret_name(name)), secret_access(name)
        answers[name] = (
            found is not None
            and (found["sha256"] == sha256 if sha256 else found["sha256"] != _SHA256_OF_NOTHING)
            and (found["uid"], found["gid"]) == (access.owner, access.group)
            and found["mode"] == f"{access.mode:04o}"
        )
    return answers


def _check_secret_name(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"The name of a file in secrets is invalid: {name!r}. Use a name without .. that does"
            " not begin with /."
        )
    return path


def needs_plain_keys(root: Path) -> bool:
    """Whether a release on the host has a chat API that reads clients' keys in plain text.

    The host can go back to any of its releases. Their compose files name the file with the keys.
    """
    files = (root / RELEASES).glob(f"[0-9]*/{DEPLOYED_FILES[0]}")
    return any(_PLAIN_KEYS_LINE.search(read_text(path) or "") for path in files)


def read_lock(root: Path) -> Optional[Facts]:
    """Who changes the host now, and since when ({"by", "since", "pid"}); None where nobody does.

    The lock is the kernel's, so the text that a dead holder has left does not count.
    """
    try:
        with (root / LOCK).open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return read_json(root / LOCK) or {"by": "somebody", "since": None, "pid": None}
    except OSError:
        pass
    return None


def read_journal(root: Path) -> Optional[Facts]:
    """The change that began and did not end: from, to, by, since, step; None where there is none.

    Its first line is an object, the others are the steps that it has begun.
    """
    text = read_text(root / JOURNAL)
    if text is None:
        return None
    first, *steps = text.splitlines() or [""]
    return {**(_object(first) or {}), "step": steps[-1] if steps else None}


def read_release(root: Path, link: str) -> Optional[Facts]:
    """The release.json of the release that a link in the root names.

    Plans of earlier versions have all options of daemon.json, also such as hold a secret.
    """
    release = read_json(root / link / RELEASE)
    plan = (release or {}).get("plan")
    docker = plan.get("docker") if isinstance(plan, dict) else None
    options = docker.get("daemon_json") if isinstance(docker, dict) else None
    if isinstance(docker, dict) and isinstance(options, dict):
        docker["daemon_json"] = select_options(options, PLANNED_OPTIONS)
    return release


def read_history(root: Path, most: Optional[int] = 20) -> List[Facts]:
    """The results of the last changes, the newest last; of all, where `most` is None."""
    lines = (read_text(root / HISTORY) or "").splitlines()
    # A cut of the power can leave half a line.
    return [each for each in map(_object, lines[-most:] if most else lines) if each]


def describe_change(entry: Mapping[str, Any]) -> Facts:
    """An entry of the history, by the names of the `release` module's result."""
    return {_RESULT_NAMES.get(name, name): value for name, value in entry.items()}


def _object(line: str) -> Optional[Facts]:
    found = parse_json(line)
    return found if isinstance(found, dict) else None
