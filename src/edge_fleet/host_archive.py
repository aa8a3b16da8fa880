"""The program that runs on hosts by itself: `edge_host` as one archive, named by its content.

Python runs such an archive as it is. A host that has one of this name has the very program, and a
program that runs is never replaced under its own feet, since another version has another name.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

import edge_host

_MAIN = """\
import sys

from edge_host.cli import main

sys.exit(main(sys.argv[1:]))
"""
# The earliest date that a zip archive can hold: the same content gives the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


@cache
def build() -> tuple[str, bytes]:
    """Return the archive's file name and its content."""
    package = Path(edge_host.__file__).parent
    files = {"__main__.py": _MAIN.encode()}
    for path in sorted(package.rglob("*.py")):
        files[f"edge_host/{path.relative_to(package)}"] = path.read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)
    digest = hashlib.sha256(archive.getvalue()).hexdigest()
    return f"edge_host-{digest[:16]}.pyz", archive.getvalue()


def program_path(folder: str) -> str:
    """Return the path that this version's program has in a folder of a host."""
    return f"{folder.rstrip('/')}/{build()[0]}"
