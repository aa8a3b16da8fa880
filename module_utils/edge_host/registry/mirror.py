"""Copies images of other registries into the fleet's registry, under the same digests.

skopeo copies an image into a folder, as the registry's user and confined by systemd: it reads what
a server sends. It reads the image's manifests first, which say how much space the image takes. From
the folder the image is uploaded to the registry's socket for writes, which only root can reach.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Union

from ..commands import which
from ..constants import IMAGE_HOURS
from ..disk import describe_shortage
from ..image_ref import ImageRef
from ..systemd import SYSTEMCTL_SECONDS
from .client import READY_SECONDS, RegistryClient
from .errors import RegistryError
from .manifest import measure_image
from .sandbox import SANDBOX
from .upload import upload_folder

# What tells skopeo the way: the caller's variables are not those of a unit.
_PASSED = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_DIR", "SSL_CERT_FILE"),
)
_LOGINS = ".docker/config.json"
_LONGEST_MESSAGE = 2000


class Source(NamedTuple):
    """An image in its own registry, and how skopeo gets there.

    `folder` is where it is copied to, `variables` the file with skopeo's environment, `user` whom
    it runs as.
    """

    skopeo: str
    upstream: ImageRef
    insecure: Sequence[str]
    folder: Path
    variables: Path
    user: int

    @property
    def _verified(self) -> str:
        return str(self.upstream.registry not in self.insecure).lower()

    def copy_command(self) -> List[str]:
        """Return the command that copies the image with all its platforms into folder/image."""
        return [
            *self._confined(f"copy-{os.getpid()}"),
            *("copy", "--quiet", "--retry-times", "3", "--multi-arch", "all"),
            *("--preserve-digests", f"--src-tls-verify={self._verified}"),
            f"docker://{self.upstream.without_tag()}",
            f"dir:{self.folder / 'image'}",
        ]

    def inspect_command(self, digest: str) -> List[str]:
        """Return the command that prints the manifest with a digest, of the image or a platform."""
        manifest = self.upstream.without_tag()._replace(digest=digest)
        # A unit's name is free again only a moment after its end.
        return [
            *self._confined(f"inspect-{os.getpid()}-{digest.partition(':')[2][:12]}"),
            *("inspect", "--raw", "--retry-times", "3", f"--tls-verify={self._verified}"),
            f"docker://{manifest}",
        ]

    def _confined(self, unit: str) -> List[str]:
        """Return how a command of skopeo begins: as the registry's user, confined by systemd."""
        properties = [
            *SANDBOX,
            "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
            f"ReadWritePaths={self.folder}",
            f"EnvironmentFile={self.variables}",
            "MemoryMax=1G",
            "TasksMax=256",
            f"RuntimeMaxSec={IMAGE_HOURS}h",
        ]
        return [
            *("systemd-run", "--quiet", "--wait", "--pipe", "--collect"),
            f"--unit=edge-llm-registry-{unit}",
            *(f"--property={each}" for each in properties),
            *("setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"),
            self.skopeo,
        ]


def mirror(
    socket: Path,
    staging: Path,
    user: int,
    images: Sequence[Dict[str, str]],
    insecure: Sequence[str],
) -> List[str]:
    """Copy the images that the registry does not have; return their upstream references.

    socket: where the registry takes writes; staging: a folder that only root can write to, for
    images on their way; user: the registry's; images: each a `reference` (as hosts pull it; its
    registry does not matter) and where it is `outside`; insecure: upstream registries reached
    without TLS. Raises RegistryError.
    """
    wanted = [
        (_pinned(each["reference"]), _pinned(each["outside"]), each["outside"]) for each in images
    ]
    copied: List[str] = []
    if not wanted:
        return copied
    client = RegistryClient(socket, user)
    client.wait_ready(READY_SECONDS)
    for reference, upstream, name in wanted:
        if name in copied or client.has_image(reference):
            continue
        try:
            _copy(client, reference, upstream, name, staging, insecure)
        except OSError as error:
            raise RegistryError(
                f"The image {name} could not be copied into the registry: {error}. Check the disk"
                f" of {staging}, and run this again."
            ) from error
        copied.append(name)
    return copied


def _pinned(text: str) -> ImageRef:
    """A reference that has a digest. Raises RegistryError for any other."""
    try:
        found = ImageRef.parse(text)
    except ValueError as error:
        raise RegistryError(str(error)) from error
    if found.digest is None:
        raise RegistryError(f"The image reference has no digest: {text!r}. Use NAME@sha256:DIGEST.")
    return found


def _copy(
    client: RegistryClient,
    reference: ImageRef,
    upstream: ImageRef,
    name: str,
    staging: Path,
    insecure: Sequence[str],
) -> None:
    """Copy one image into a folder of the staging folder, and from there into the registry."""
    skopeo = which("skopeo")
    if skopeo is None:
        raise RegistryError("skopeo is missing on the host. Install it.")
    _remove_leftovers(staging)
    folder = Path(tempfile.mkdtemp(dir=staging))
    try:
        _give(folder, client.owner)
        variables = _write_environment(staging, folder, client.owner)
        source = Source(skopeo, upstream, insecure, folder, variables, client.owner)
        _check_space(source, name, staging)
        _run(source.copy_command(), name)
        upload_folder(client, reference.repository, str(reference.digest), folder / "image")
    finally:
        _remove_leftovers(staging)


def _check_space(source: Source, name: str, staging: Path) -> None:
    """Raise RegistryError where the disk has no space for an image on its way."""

    def read(digest: str) -> bytes:
        return _run(source.inspect_command(digest), name)

    size, largest = measure_image(read, str(source.upstream.digest))
    # Each blob is in both places while it is being uploaded.
    if shortage := describe_shortage(staging, size + largest, "copied"):
        raise RegistryError(
            f"The image {name} does not fit: {shortage}. Free some space, and run site.yml again."
        )


def _run(command: Sequence[str], name: str) -> bytes:
    """Run skopeo for an image; return its output. Raises RegistryError."""
    # systemd ends skopeo before; this is for a systemd that does not answer.
    limit = IMAGE_HOURS * 3600 + SYSTEMCTL_SECONDS
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        raise RegistryError(
            f"The image {name} could not be copied into the registry: systemd-run did not end"
            f" within {limit:g} s. Check systemd on the host, and run site.yml again."
        ) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-_LONGEST_MESSAGE:]
        raise RegistryError(
            f"The image {name} could not be copied into the registry:"
            f" {said or f'skopeo ended with status {done.returncode}'}"
        )
    return done.stdout


def _remove_leftovers(staging: Path) -> None:
    """Empty the staging folder, also of what a run that was killed has left."""
    for path in staging.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write_environment(staging: Path, folder: Path, user: int) -> Path:
    """Write the file with skopeo's environment, which systemd reads; return its path.

    root's logins at registries are copied for the user that skopeo runs as.
    """
    found = {
        "HOME": str(folder),
        **{name: os.environ[name] for name in _PASSED if name in os.environ},
    }
    logins = Path(os.environ.get("HOME", "/root"), _LOGINS)
    if logins.is_file():
        own = folder / "logins.json"
        _write_secret(own, logins.read_bytes(), user)
        found["REGISTRY_AUTH_FILE"] = str(own)
    lines = [f'{name}="{_escape(value)}"\n' for name, value in found.items() if "\n" not in value]
    path = staging / "environment"
    _write_secret(path, "".join(lines).encode(), os.geteuid())
    return path


def _escape(text: str) -> str:
    """A value between quotes, as systemd reads it."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _write_secret(path: Path, content: bytes, user: int) -> None:
    """Write a new file that one user can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        _give(descriptor, user)


def _give(file: Union[int, Path], user: int) -> None:
    """Give a new file or folder to a user and its group."""
    if user != os.geteuid():
        os.chown(file, user, user)
