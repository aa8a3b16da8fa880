#!/usr/bin/env python3
"""`make release VERSION=x.y.z`: the changelog, a commit, a signed tag, and the files of a release.

In dist/: the archive of the tag, which is the same however often it is built, its bill of
materials, and SHA256SUMS with a signature. Nothing is pushed. Where a step fails, the branch is as
before.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from scripts.sbom import UnpinnedError, bill_of_materials
from scripts.signing import SigningError, check_can_sign, run, sign
from scripts.verify_release import SUMS, sums_text

ROOT = Path(__file__).resolve().parent.parent
NAME = "edge-llm"
_VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")
_TYPES = ("added", "changed", "deprecated", "removed", "fixed", "security")
_UNFINISHED = re.compile(r"\b(?:TODO|FIXME|TBD|XXX)\b")


class ReleaseError(Exception):
    """No release can be made; a sentence."""


def git(root: Path, *arguments: str) -> bytes:
    """Run git and return its output. Raises ReleaseError."""
    done = run("git", *arguments, cwd=root)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ReleaseError(f"`git {arguments[0]}` failed: {said}. Check the repository")
    return done.stdout


def check_release(root: Path, version: str) -> None:
    """Raise ReleaseError or SigningError where a release of this version cannot be made."""
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"VERSION is invalid: {version!r}. Use a version such as 0.2.0")
    if changes := git(root, "status", "--porcelain").decode().splitlines():
        raise ReleaseError(
            f"The working tree does not fit: it has changes that are not committed:"
            f" {', '.join(each.strip() for each in changes[:5])}. Commit or stash them"
        )
    if (current := read_version(root)) != version:
        raise ReleaseError(
            f"VERSION does not fit: __version__ in src/llm_provider/__init__.py is {current}, and"
            f" VERSION is {version}. Commit the new __version__ first"
        )
    if git(root, "tag", "--list", f"v{version}"):
        raise ReleaseError(
            f"VERSION is invalid: the tag v{version} exists. Use the next version: a release is"
            " never changed"
        )
    check_changelog(root, version)
    check_can_sign(root)


def read_version(root: Path) -> str:
    """`__version__` of the package."""
    text = (root / "src/llm_provider/__init__.py").read_text()
    match = re.search(r'^__version__ = "(.*)"$', text, re.MULTILINE)
    return match[1] if match else "missing"


def check_changelog(root: Path, version: str) -> None:
    """Raise ReleaseError where the fragments of the changelog are not ready for a release."""
    if re.search(rf"^## \[{re.escape(version)}\]", (root / "CHANGELOG.md").read_text(), re.M):
        raise ReleaseError(
            f"CHANGELOG.md does not fit: it has a section {version}, and fragments would be added"
            " to it. Use the next version"
        )
    folder = root / "changelog.d"
    fragments = sorted(
        each for each in folder.iterdir() if each.name not in ("README.md", ".gitignore")
    )
    if not fragments:
        raise ReleaseError(
            "The changelog is unfinished: changelog.d has no fragment. Add one for each change that"
            " users notice (CONTRIBUTING.md)"
        )
    for path in fragments:
        reason, text = "", path.read_text()
        if not re.fullmatch(rf"[\w+.-]+\.(?:{'|'.join(_TYPES)})(?:\.\d+)?\.md", path.name):
            reason = "its name has no known type"
        elif not text.strip():
            reason = "it is empty"
        elif match := _UNFINISHED.search(text):
            reason = f"it has the mark {match[0]}"
        if reason:
            raise ReleaseError(
                f"The changelog is unfinished: changelog.d/{path.name}: {reason}. Correct the"
                " fragment (CONTRIBUTING.md)"
            )


def build_archive(root: Path, commit: str, version: str, folder: Path) -> Path:
    """Write the archive of a commit; the same commit gives the same bytes.

    Times in it are the commit's, and no setting of the machine is used: neither git's umask for
    archives, nor the time and the name that gzip writes by default.
    """
    packed = run(
        "git", "-c", "tar.umask=0022", "archive", "--format=tar", f"--prefix={NAME}-{version}/",
        commit, cwd=root,
    )  # fmt: skip
    if packed.returncode:
        raise ReleaseError(f"`git archive` failed: {packed.stderr.decode().strip()}. Check git")
    compressed = run("gzip", "-n", "-9", "-c", stdin=packed.stdout)
    if compressed.returncode:
        raise ReleaseError(f"`gzip` failed: {compressed.stderr.decode().strip()}. Check gzip")
    archive = folder / f"{NAME}-{version}.tar.gz"
    archive.write_bytes(compressed.stdout)
    return archive


def write_files(root: Path, commit: str, version: str, folder: Path) -> list[Path]:
    """Write the files of a release into a folder: archive, bill of materials, signed checksums."""
    seconds = int(git(root, "show", "--no-patch", "--format=%ct", commit))
    moment = datetime.fromtimestamp(seconds, UTC)
    archive = build_archive(root, commit, version, folder)
    bill = folder / f"{NAME}-{version}.cdx.json"
    bill.write_text(bill_of_materials(root, version, commit, moment))
    sums = folder / SUMS
    sums.write_text(sums_text([archive, bill]))
    return [archive, bill, sums, sign(root, sums)]


def release(root: Path, version: str) -> list[Path]:
    """Make a release; returns its files. Raises ReleaseError, SigningError, UnpinnedError."""
    check_release(root, version)
    before = git(root, "rev-parse", "HEAD").decode().strip()
    folder = root / "dist" / version
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        build_changelog(root, version)
        git(root, "commit", "--quiet", "--all", "--message", f"Release {version}")
        commit = git(root, "rev-parse", "HEAD").decode().strip()
        files = write_files(root, commit, version, folder)
        git(root, "tag", "--sign", "--message", f"{NAME} {version}", f"v{version}", commit)
    except BaseException:
        # The tree was clean, so that only this release's own changes are undone.
        git(root, "reset", "--quiet", "--hard", before)
        shutil.rmtree(folder)
        raise
    return files


def build_changelog(root: Path, version: str) -> None:
    """Move the fragments of changelog.d into CHANGELOG.md."""
    done = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--yes", "--version", version],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ReleaseError(
            f"`towncrier build` failed: {(done.stderr or done.stdout).strip()}. Correct the"
            " fragments in changelog.d"
        )


def main(arguments: list[str]) -> int:
    """Make a release, and say what is left to do; the exit status is 1 where none can be made."""
    parser = argparse.ArgumentParser(description="make release")
    parser.add_argument("version")
    version = parser.parse_args(arguments).version
    try:
        files = release(ROOT, version)
    except (ReleaseError, SigningError, UnpinnedError) as error:
        print(f"{error}.", file=sys.stderr)
        return 1
    print("\n".join(str(each.relative_to(ROOT)) for each in files))
    print(f"Next: git push origin HEAD v{version}, and attach these files to the release there.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
