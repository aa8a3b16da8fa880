#!/usr/bin/env python3
"""`make verify-release ARCHIVE=...`: whether an archive is the one that the maintainers released.

Beside the archive are SHA256SUMS and its signature. Standard library only: whoever verifies a
release has not installed it.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path

from scripts.signing import SigningError, verify

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([\w.+-]+)")


class ReleaseRefused(Exception):
    """The archive is not that of a release; a sentence."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sums_text(paths: list[Path]) -> str:
    """Checksums of files as sha256sum writes and checks them."""
    return "".join(f"{file_sha256(each)}  {each.name}\n" for each in paths)


def verify_release(archive: Path, signers: Path | None) -> list[str]:
    """Return what was verified, a line each. Raises ReleaseRefused, SigningError."""
    sums = archive.parent / SUMS
    for path in (archive, sums):
        if not path.is_file():
            raise ReleaseRefused(f"{path} is missing. Download it from the release")
    # First the signature: checksums that nobody signed say nothing.
    who = verify(sums, signers)
    lines = [_LINE.fullmatch(line) for line in sums.read_text().splitlines()]
    expected = {each[2]: each[1] for each in lines if each}
    if None in lines or archive.name not in expected:
        raise ReleaseRefused(
            f"{SUMS} does not fit: it has no checksum of {archive.name}. Use the file of the same"
            " release"
        )
    found = [f"{SUMS}: signed by {who}"]
    for name, checksum in expected.items():
        path = archive.parent / name
        if not path.exists():  # only the archive is needed
            continue
        if (actual := file_sha256(path)) != checksum:
            raise ReleaseRefused(
                f"{name} does not fit: its SHA-256 is {actual}, and {SUMS} has {checksum}. Download"
                " it again, and do not use it if that is repeated"
            )
        found.append(f"{name}: as released")
    return found


def main(arguments: list[str]) -> int:
    """Verify a release; the exit status is 1 where it is refused."""
    parser = argparse.ArgumentParser(description=verify_release.__doc__)
    parser.add_argument("archive")
    parser.add_argument("--signers", type=Path)
    given = parser.parse_args(arguments)
    try:
        if not given.archive:
            raise ReleaseRefused("ARCHIVE is missing. Use the path of the archive")
        print("\n".join(verify_release(Path(given.archive).expanduser(), given.signers)))
    except (ReleaseRefused, SigningError, OSError) as error:
        print(f"{error}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
