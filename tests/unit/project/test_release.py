"""scripts/release.py and verify_release.py, with real keys, real tags and changed archives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from scripts import release as releases
from scripts.release import ReleaseError, build_archive, release
from scripts.sbom import UnpinnedError, bill_of_materials, read_lock
from scripts.signing import NAMESPACE, SigningError
from scripts.verify_release import SUMS, ReleaseRefused, verify_release

ROOT = Path(__file__).parents[3]
VERSION = "0.2.0"
DIGEST = "a" * 64
FILES = {
    "src/llm_provider/__init__.py": f'__version__ = "{VERSION}"\n',
    "CHANGELOG.md": "# Changelog\n\n<!-- towncrier release notes start -->\n",
    "changelog.d/README.md": "# Fragments\n",
    "changelog.d/+boards.added.md": "A new board.\n",
    "requirements/api.txt": f"idna==3.10 \\\n    --hash=sha256:{DIGEST}\n    # via httpx\n",
    "engines.yml": (
        f"api: {{image: docker.io/library/python:3.13, digest: 'sha256:{DIGEST}'}}\n"
        "engines:\n"
        "  ollama:\n"
        f"    images: [{{image: docker.io/ollama/ollama, digest: 'sha256:{DIGEST}'}},\n"
        "             {image: docker.io/some/open, digest: null}]\n"
    ),
    ".gitignore": "/dist/\n",
}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_key(path: Path) -> str:
    """A key of ssh; its public half as allowed signers have it."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True
    )
    public = Path(f"{path}.pub").read_text().strip()
    return f'maintainer@example namespaces="git,{NAMESPACE}" {public}\n'


@pytest.fixture
def signers(tmp_path: Path) -> Path:
    path = tmp_path / "signers"
    path.write_text(make_key(tmp_path / "key"))
    return path


@pytest.fixture
def project(tmp_path: Path, signers: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that can be released, with a signing key."""
    # No setting of the machine counts, such as a key of its user.
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    root = tmp_path / "project"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shutil.copy(ROOT / "pyproject.toml", root)
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "project")
    for name, value in {
        "user.name": "Maintainer",
        "user.email": "maintainer@example",
        "gpg.format": "ssh",
        "user.signingkey": str(tmp_path / "key.pub"),
        "gpg.ssh.allowedSignersFile": str(signers),
    }.items():
        git(root, "config", name, value)
    return commit(root)


def commit(root: Path) -> Path:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "A change")
    return root


@pytest.fixture
def made(project: Path) -> Path:
    """The archive of a release."""
    return release(project, VERSION)[0]


def refusal(root: Path, version: str = VERSION) -> str:
    """Why a release is refused; nothing has changed then."""
    before = git(root, "rev-parse", "HEAD"), git(root, "status", "--porcelain")
    tags = git(root, "tag", "--list")
    with pytest.raises((ReleaseError, SigningError, UnpinnedError)) as caught:
        release(root, version)
    assert (git(root, "rev-parse", "HEAD"), git(root, "status", "--porcelain")) == before
    assert git(root, "tag", "--list") == tags
    assert not list((root / "dist").glob("*/*"))
    return str(caught.value)


def test_a_release(project: Path, signers: Path) -> None:
    files = release(project, VERSION)
    assert [each.name for each in files] == [
        "edge-llm-0.2.0.tar.gz",
        "edge-llm-0.2.0.cdx.json",
        "SHA256SUMS",
        "SHA256SUMS.sig",
    ]
    git(project, "verify-tag", "v0.2.0")
    assert git(project, "rev-parse", "v0.2.0^{commit}") == git(project, "rev-parse", "HEAD")
    assert git(project, "status", "--porcelain") == ""
    assert not (project / "changelog.d/+boards.added.md").exists()
    with tarfile.open(files[0]) as archive:
        names = archive.getnames()
        changelog = archive.extractfile("edge-llm-0.2.0/CHANGELOG.md")
        assert changelog is not None
        text = changelog.read().decode()
    assert "edge-llm-0.2.0/engines.yml" in names
    assert "## [0.2.0] - " in text and "- A new board." in text
    assert verify_release(files[0], signers) == [
        "SHA256SUMS: signed by maintainer@example",
        "edge-llm-0.2.0.tar.gz: as released",
        "edge-llm-0.2.0.cdx.json: as released",
    ]
    subprocess.run(["sha256sum", "--check", SUMS], cwd=files[0].parent, check=True)


def test_the_archive_is_the_same_wherever_it_is_built(made: Path, tmp_path: Path) -> None:
    project = made.parents[2]
    other = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(project), str(other))
    git(other, "config", "tar.umask", "0077")
    again = tmp_path / "again"
    again.mkdir()
    archive = build_archive(other, "v0.2.0^{commit}", VERSION, again)
    assert archive.read_bytes() == made.read_bytes()
    assert archive.read_bytes()[4:8] == b"\0\0\0\0"  # gzip's own time


def test_a_changed_tree(project: Path) -> None:
    (project / "new").touch()
    assert refusal(project) == (
        "The working tree does not fit: it has changes that are not committed: ?? new. Commit or"
        " stash them"
    )


def test_another_version_than_the_package(project: Path) -> None:
    assert refusal(project, "0.3.0") == (
        "VERSION does not fit: __version__ in src/llm_provider/__init__.py is 0.2.0, and VERSION is"
        " 0.3.0. Commit the new __version__ first"
    )


@pytest.mark.parametrize("version", ["", "v0.2.0", "0.2", "0.2.0 --force"])
def test_no_version(project: Path, version: str) -> None:
    expected = f"VERSION is invalid: {version!r}. Use a version such as 0.2.0"
    assert refusal(project, version) == expected


def test_a_tag_that_exists(project: Path) -> None:
    git(project, "tag", "v0.2.0")
    assert refusal(project) == (
        "VERSION is invalid: the tag v0.2.0 exists. Use the next version: a release is never"
        " changed"
    )


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("+x.added.md", "  \n", "it is empty"),
        ("+x.added.md", "What changes: TODO\n", "it has the mark TODO"),
        ("+x.feature.md", "A change.\n", "its name has no known type"),
        ("notes.txt", "A change.\n", "its name has no known type"),
    ],
)
def test_an_unfinished_fragment(project: Path, name: str, text: str, reason: str) -> None:
    (project / "changelog.d" / name).write_text(text)
    assert refusal(commit(project)) == (
        f"The changelog is unfinished: changelog.d/{name}: {reason}. Correct the fragment"
        " (CONTRIBUTING.md)"
    )


def test_no_fragment(project: Path) -> None:
    (project / "changelog.d/+boards.added.md").unlink()
    assert refusal(commit(project)) == (
        "The changelog is unfinished: changelog.d has no fragment. Add one for each change that"
        " users notice (CONTRIBUTING.md)"
    )


def test_a_changelog_that_has_the_version(project: Path) -> None:
    with (project / "CHANGELOG.md").open("a") as changelog:
        changelog.write("\n## [0.2.0] - 2026-01-01\n")
    assert refusal(commit(project)) == (
        "CHANGELOG.md does not fit: it has a section 0.2.0, and fragments would be added to it. Use"
        " the next version"
    )


def test_no_signing_key(project: Path) -> None:
    git(project, "config", "--unset", "user.signingkey")
    assert refusal(project) == (
        "The signing key is missing: git has no user.signingkey. Make one with `ssh-keygen -t"
        " ed25519 -f ~/.ssh/release`, then `git config gpg.format ssh` and `git config"
        " user.signingkey ~/.ssh/release.pub`"
    )


def test_a_signing_key_that_does_not_sign(project: Path, tmp_path: Path) -> None:
    (tmp_path / "key").unlink()
    message = refusal(project)
    assert message.startswith("The signing key is invalid: git could not sign with it: ")
    assert message.endswith(". Check user.signingkey and gpg.format of git")


def test_a_kind_of_key_that_signs_no_files(project: Path) -> None:
    git(project, "config", "gpg.format", "x509")
    assert refusal(project) == (
        "gpg.format of git is invalid: x509. Use ssh or openpgp, which sign files as well"
    )


def test_a_step_that_fails_leaves_the_branch_as_it_was(project: Path) -> None:
    """The lock is read after the changelog was committed."""
    (project / "requirements/api.txt").write_text("idna==3.10\n")
    assert refusal(commit(project)) == (
        "api.txt does not fit: idna==3.10 has no hash. Make the lock again (requirements/README.md)"
    )
    assert (project / "changelog.d/+boards.added.md").exists()


# What is downloaded


def refused(archive: Path, signers: Path | None) -> str:
    with pytest.raises((ReleaseRefused, SigningError)) as caught:
        verify_release(archive, signers)
    return str(caught.value)


def test_a_changed_archive(made: Path, signers: Path) -> None:
    content = bytearray(made.read_bytes())
    content[-1] ^= 1
    made.write_bytes(content)
    message = refused(made, signers)
    assert message.startswith(f"{made.name} does not fit: its SHA-256 is ")
    assert message.endswith(". Download it again, and do not use it if that is repeated")


def test_changed_checksums(made: Path, signers: Path) -> None:
    sums = made.parent / SUMS
    sums.write_text(sums.read_text().replace("0", "1"))
    message = refused(made, signers)
    assert message.startswith(
        "The signature is invalid: SHA256SUMS.sig is not of this SHA256SUMS: "
    )
    assert message.endswith(". Download the release again, and do not use it if that is repeated")


def test_the_signature_of_another_key(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "others"
    other.write_text(make_key(tmp_path / "other"))
    assert refused(made, other) == (
        f"The signature is invalid: none of the keys in {other} made SHA256SUMS.sig. Download the"
        " release again, and do not use it if that is repeated"
    )


def test_a_signature_for_something_else(made: Path, signers: Path, tmp_path: Path) -> None:
    """Git signs tags with the same key, for the namespace `git`."""
    sums = made.parent / SUMS
    Path(f"{sums}.sig").unlink()
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", str(tmp_path / "key")]
    subprocess.run([*command, str(sums)], check=True, capture_output=True)
    assert refused(made, signers).startswith("The signature is invalid: SHA256SUMS.sig is not of")


def test_no_signature(made: Path, signers: Path) -> None:
    (made.parent / f"{SUMS}.sig").unlink()
    assert refused(made, signers) == (
        "The signature is missing: there is neither SHA256SUMS.sig nor SHA256SUMS.asc beside"
        " SHA256SUMS. Download it from the release"
    )


def test_no_signers(made: Path) -> None:
    assert refused(made, None) == (
        "The signers are missing: SIGNERS is no file. Write a line `NAME"
        ' namespaces="git,edge-llm-release" ssh-ed25519 ...` for each maintainer\'s key, and name'
        " the file by SIGNERS="
    )


def test_the_checksums_of_another_release(made: Path, signers: Path) -> None:
    other = made.with_name("edge-llm-0.1.0.tar.gz")
    made.rename(other)
    assert refused(other, signers) == (
        "SHA256SUMS does not fit: it has no checksum of edge-llm-0.1.0.tar.gz. Use the file of the"
        " same release"
    )


def test_what_was_not_downloaded(made: Path, signers: Path) -> None:
    (made.parent / SUMS).unlink()
    assert (
        refused(made, signers) == f"{made.parent / SUMS} is missing. Download it from the release"
    )


def test_the_commands(made: Path, signers: Path) -> None:
    """As make runs them: exit status and message."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip

    verify = ("scripts.verify_release", str(made), "--signers", str(signers))
    assert run(*verify).returncode == 0
    made.write_bytes(b"another one")
    done = run(*verify)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{made.name} does not fit: ")
    done = run("scripts.verify_release", "")
    assert (done.returncode, done.stderr) == (
        1,
        "ARCHIVE is missing. Use the path of the archive.\n",
    )
    done = run("scripts.release", "not a version")
    assert done.returncode == 1
    assert done.stderr == "VERSION is invalid: 'not a version'. Use a version such as 0.2.0.\n"


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not on this machine")
def test_a_release_signed_by_gpg(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "g"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    options = ["--batch", "--passphrase", "", "--quick-generate-key"]
    subprocess.run(["gpg", *options, "m@example", "ed25519", "sign"], check=True)
    git(project, "config", "gpg.format", "openpgp")
    git(project, "config", "user.signingkey", "m@example")
    archive, *_, signature = release(project, VERSION)
    assert signature.name == "SHA256SUMS.asc"
    git(project, "verify-tag", "v0.2.0")
    assert len(verify_release(archive, None)) == 3
    sums = archive.parent / SUMS
    sums.write_text(sums.read_text() + "\n")
    message = refused(archive, None)
    assert message.startswith("The signature is invalid: gpg does not accept SHA256SUMS.asc: ")


# The bill of materials


def test_the_bill_of_materials(project: Path) -> None:
    (project / "requirements/dev.txt").write_text(
        f"idna==3.10 \\\n    --hash=sha256:{DIGEST}\n"
        f"ruff==1.0 ; sys_platform != 'win32' \\\n    --hash=sha256:{'b' * 64} \\\n"
        f"    --hash=sha256:{'c' * 64}\n"
    )
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    text = bill_of_materials(project, VERSION, "c0ffee", moment)
    assert bill_of_materials(project, VERSION, "c0ffee", moment) == text
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    assert found["metadata"]["timestamp"] == "2026-01-02T00:00:00+00:00"
    assert found["metadata"]["component"]["version"] == VERSION
    parts = {each["name"]: each for each in found["components"]}
    assert {name: each["scope"] for name, each in parts.items()} == {
        "idna": "required",
        "ruff": "excluded",
        "docker.io/library/python": "required",
        "docker.io/ollama/ollama": "required",
    }
    assert parts["idna"]["purl"] == "pkg:pypi/idna@3.10"
    assert parts["idna"]["properties"] == [{"name": "edge-llm:locks", "value": "api,dev"}]
    (files,) = parts["ruff"]["externalReferences"]
    assert [each["content"] for each in files["hashes"]] == ["b" * 64, "c" * 64]
    assert parts["docker.io/ollama/ollama"]["hashes"][0]["content"] == DIGEST


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=str)
def test_every_pin_of_a_lock_is_read(path: Path) -> None:
    text = path.read_text()
    pins = list(read_lock(text))
    assert len(pins) == sum(line[:1].isalnum() for line in text.splitlines())
    assert sum(len(hashes) for _, _, hashes in pins) == text.count("--hash=")


def test_the_types_of_fragments_are_those_of_towncrier() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for each in releases._TYPES:
        assert f'directory = "{each}"' in text
    assert text.count("[[tool.towncrier.type]]") == len(releases._TYPES)
