"""Whether a host has the program and the unit files as this version installs them.

The program's name has a hash of its content, and the unit files name the program: where they are of
another version of this project, both differ.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, List, Mapping

from ..commands import find_python
from ..constants import IN_PLACE
from ..files import diff_texts, entries, read_file, read_text
from ..json_data import Facts
from ..release_record import hash_text
from ..systemd import UNITS
from .recovery import SERVICE, build_unit
from .sockets import build_socket_units

MISSING, DIFFERENT, DISABLED = "missing", "different", "disabled"
OTHER_VERSION = "of another version"
_MODE = "0644"


def build_units(root: Path, program: Path, listen_address: str) -> Dict[str, str]:
    """Return the names and texts of the units of a deployment, which use the Python of this."""
    python = find_python()
    return {
        SERVICE: build_unit(root, python, program),
        **build_socket_units(root, python, program, listen_address),
    }


def inspect_installation(
    root: Path, program: Path, listen_address: str, system: Path = Path("/")
) -> Dict[str, str]:
    """Return what was found of the program, of others in its folder, and of each unit file.

    By name: IN_PLACE, or one of the constants above.
    """
    folder = system / UNITS.relative_to("/")
    units = build_units(root, program, listen_address)
    return {
        program.name: inspect_program(program),
        **{path.name: OTHER_VERSION for path in find_other_programs(program)},
        **{name: inspect_unit(folder / name, text) for name, text in units.items()},
    }


def inspect_program(program: Path) -> str:
    """Return whether the program is there, with the content that its name says."""
    found = read_file(program)
    if found is None:
        return MISSING
    whole = found["sha256"].startswith(program.stem.rpartition("-")[2])
    return IN_PLACE if whole and _is_guarded(found) else DIFFERENT


def find_other_programs(program: Path) -> List[Path]:
    """Return the programs of other versions, in the program's folder."""
    return [
        path
        for path in entries(program.parent)
        if path.suffix == program.suffix and path.name != program.name
    ]


def inspect_unit(path: Path, text: str) -> str:
    """Return whether a unit file has this text, and its unit is enabled as the text says."""
    if not is_written(path, text):
        return DIFFERENT if os.path.lexists(path) else MISSING
    targets = re.findall(r"(?m)^WantedBy=(\S+)$", text)
    links = [path.parent / f"{target}.wants" / path.name for target in targets]
    return IN_PLACE if all(map(os.path.lexists, links)) else DISABLED


def is_written(path: Path, text: str) -> bool:
    """Whether a unit file has this text, and nobody but its owner may change it."""
    found = read_file(path)
    return found is not None and found["sha256"] == hash_text(text) and _is_guarded(found)


def diff_units(texts: Mapping[str, str], folder: Path) -> List[Dict[str, str]]:
    """Return how the unit files in a folder differ from their texts, in Ansible's form of a diff.

    `texts` are by the units' names.
    """
    after = {str(folder / name): text for name, text in texts.items()}
    return diff_texts({path: read_text(Path(path)) or "" for path in after}, after)


def _is_guarded(found: Facts) -> bool:
    """Whether a file is this user's (root's, on a host), with the mode that it was written with."""
    return (found["mode"], found["uid"]) == (_MODE, os.geteuid())
