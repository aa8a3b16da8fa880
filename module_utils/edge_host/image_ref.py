"""References of container images, read as Docker reads them.

A reference is `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`. A first component without a dot, a colon or
an upper-case letter belongs to the repository, unless it is `localhost`; the registry is then
`docker.io`, whose repositories without an owner are in `library`
(https://github.com/distribution/reference).

Pure functions: the control machine imports this module, too.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional, Tuple

DEFAULT_REGISTRY = "docker.io"
_OLD_DEFAULT_REGISTRY = "index.docker.io"
_DEFAULT_OWNER = "library"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ImageRef(NamedTuple):
    """The parts of a reference. `str` gives the full reference, with registry and owner."""

    registry: str
    repository: str
    tag: Optional[str] = None
    digest: Optional[str] = None

    @classmethod
    def parse(cls, text: str) -> ImageRef:
        """Read a reference. Raises ValueError for text that Docker would not accept."""
        named, at, digest = text.partition("@")
        # A colon before the last slash belongs to the registry's port.
        head, slash, last = named.rpartition("/")
        last, colon, tag = last.partition(":")
        registry, repository = _split(f"{head}{slash}{last}")
        if (
            not _REGISTRY.fullmatch(registry)
            or not _REPOSITORY.fullmatch(repository)
            or (colon and not _TAG.fullmatch(tag))
            or (at and not _DIGEST.fullmatch(digest))
        ):
            raise ValueError(
                f"The image reference is invalid: {text!r}."
                " Use [REGISTRY/]NAME[:TAG][@sha256:DIGEST]."
            )
        return cls(registry, repository, tag or None, digest or None)

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def short(self) -> str:
        """The last component with its tag, and the first eight digits of the digest."""
        return (
            self.repository.rpartition("/")[2]
            + (f":{self.tag}" if self.tag else "")
            + (f"@{self.digest[7:15]}" if self.digest else "")
        )

    def without_tag(self) -> ImageRef:
        """The same image by its digest alone."""
        return self._replace(tag=None)

    def through_cache(self, cache: str) -> ImageRef:
        """The image as the registry `cache` (an authority) has it: below the registry's name.

        A registry's colon (and the brackets of an IPv6 address) cannot stand in a repository.
        """
        folder = re.sub(r"[\[\]]", "", self.registry.lower()).replace(":", "-").strip("-")
        return ImageRef(cache, f"{folder}/{self.repository}", None, self.digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return self.name + tag + (f"@{self.digest}" if self.digest else "")


def _split(name: str) -> Tuple[str, str]:
    """Registry and repository of a name without tag and digest."""
    first, slash, rest = name.partition("/")
    if not slash or not (first == "localhost" or re.search(r"[.:A-Z]", first)):
        first, rest = DEFAULT_REGISTRY, name
    if first == _OLD_DEFAULT_REGISTRY:
        first = DEFAULT_REGISTRY
    if first == DEFAULT_REGISTRY and "/" not in rest:
        rest = f"{_DEFAULT_OWNER}/{rest}"
    return first, rest


def is_pinned(text: str) -> bool:
    """Whether a reference has a digest: the image can then be only one content."""
    try:
        return ImageRef.parse(text).digest is not None
    except ValueError:
        return False


def authority(host: str, port: int) -> str:
    """A registry's host and port as they stand in a reference."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
