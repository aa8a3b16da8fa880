"""Detached signatures of a release's checksums, by the key that signs the tag.

Git decides how: `gpg.format` is ssh (ssh-keygen signs) or openpgp, its default (gpg signs).
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

NAMESPACE = "edge-llm-release"
"""What ssh signatures of checksums are for: one of something else is refused."""
SSH_SUFFIX, PGP_SUFFIX = ".sig", ".asc"
HOW_TO_SIGN = (
    "Make one with `ssh-keygen -t ed25519 -f ~/.ssh/release`, then `git config gpg.format ssh` and"
    " `git config user.signingkey ~/.ssh/release.pub`"
)


class SigningError(Exception):
    """A signature cannot be made, or is not valid; a sentence."""


def run(
    *command: str, cwd: Path | None = None, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command; its exit status is not checked."""
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, check=False)


def git_setting(root: Path, name: str) -> str:
    """A value of git's configuration; empty where it has none."""
    return run("git", "config", "--get", name, cwd=root).stdout.decode().strip()


def check_can_sign(root: Path) -> None:
    """Sign something that is thrown away, so that a release does not fail at its last step."""
    kind = git_setting(root, "gpg.format") or "openpgp"
    if kind not in ("ssh", "openpgp"):
        raise SigningError(
            f"gpg.format of git is invalid: {kind}. Use ssh or openpgp, which sign files as well"
        )
    if not git_setting(root, "user.signingkey"):
        raise SigningError(f"The signing key is missing: git has no user.signingkey. {HOW_TO_SIGN}")
    # A commit of its own, which no branch or tag leads to.
    done = run(
        "git", "commit-tree", "-S", "-m", "Trial of the signing key", "HEAD^{tree}", cwd=root
    )
    if done.returncode:
        raise SigningError(
            f"The signing key is invalid: git could not sign with it: {_last(done)}. Check"
            " user.signingkey and gpg.format of git"
        )


def sign(root: Path, path: Path) -> Path:
    """Write the signature of a file beside it, and return its path."""
    key = git_setting(root, "user.signingkey")
    if git_setting(root, "gpg.format") == "ssh":
        with tempfile.TemporaryDirectory() as folder:
            options = []
            if key.startswith(("key::", "ssh-")):  # the public key itself; an agent has the other
                written = Path(folder, "key.pub")
                written.write_text(f"{key.removeprefix('key::')}\n")
                key, options = str(written), ["-U"]
            done = run(
                "ssh-keygen", "-Y", "sign", *options, "-n", NAMESPACE,
                "-f", str(Path(key).expanduser()),
                stdin=path.read_bytes(),
            )  # fmt: skip
        signature = Path(f"{path}{SSH_SUFFIX}")
    else:
        done = run(
            "gpg", "--batch", "--local-user", key, "--armor", "--detach-sign", "--output", "-",
            str(path),
        )  # fmt: skip
        signature = Path(f"{path}{PGP_SUFFIX}")
    if done.returncode:
        raise SigningError(f"{path.name} could not be signed: {_last(done)}. Check user.signingkey")
    signature.write_bytes(done.stdout)
    return signature


def verify(path: Path, signers: Path | None) -> str:
    """Return who signed a file. Raises SigningError.

    signers: the keys that are trusted, in the format of git's gpg.ssh.allowedSignersFile, for
    signatures of ssh; those of gpg are checked with its keyring.
    """
    ssh, pgp = Path(f"{path}{SSH_SUFFIX}"), Path(f"{path}{PGP_SUFFIX}")
    if ssh.exists():
        return _verify_ssh(path, ssh, signers)
    if not pgp.exists():
        raise SigningError(
            f"The signature is missing: there is neither {ssh.name} nor {pgp.name} beside"
            f" {path.name}. Download it from the release"
        )
    done = run("gpg", "--batch", "--status-fd", "1", "--verify", str(pgp), str(path))
    valid = [line for line in done.stdout.decode().splitlines() if " VALIDSIG " in line]
    if done.returncode or not valid:
        raise SigningError(
            f"The signature is invalid: gpg does not accept {pgp.name}: {_last(done)}. Download the"
            " release again, and import the maintainers' key if gpg has no public key"
        )
    return valid[0].split()[2]


def _verify_ssh(path: Path, signature: Path, signers: Path | None) -> str:
    if signers is None or not signers.is_file():
        raise SigningError(
            f"The signers are missing: {signers or 'SIGNERS'} is no file. Write a line `NAME"
            f' namespaces="git,{NAMESPACE}" ssh-ed25519 ...` for each maintainer\'s key, and name'
            " the file by SIGNERS="
        )
    keys, made = ("-f", str(signers)), ("-s", str(signature))
    found = run("ssh-keygen", "-Y", "find-principals", *keys, *made)
    who = found.stdout.decode().splitlines()
    if found.returncode or not who:
        raise SigningError(
            f"The signature is invalid: none of the keys in {signers} made {signature.name}."
            " Download the release again, and do not use it if that is repeated"
        )
    done = run(
        "ssh-keygen", "-Y", "verify", *keys, *made, "-I", who[0], "-n", NAMESPACE,
        stdin=path.read_bytes(),
    )  # fmt: skip
    if done.returncode:
        raise SigningError(
            f"The signature is invalid: {signature.name} is not of this {path.name}:"
            f" {_last(done)}. Download the release again, and do not use it if that is repeated"
        )
    return who[0]


def _last(done: subprocess.CompletedProcess[bytes]) -> str:
    """The last line of what a command printed."""
    text = (done.stderr or done.stdout).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else f"exit status {done.returncode}"
