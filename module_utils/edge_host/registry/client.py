"""A client of a registry that listens on a Unix socket (the OCI distribution API)."""

from __future__ import annotations

import http.client
import time
import urllib.parse
from pathlib import Path
from typing import BinaryIO, Dict, Mapping, Optional, Tuple, Union

from ..image_ref import ImageRef
from ..unix_http import UnixConnection
from .errors import RegistryError

MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
READY_SECONDS = 60.0
"""Until a container that was started answers."""
ANSWER_SECONDS = 600.0
"""For one answer: a registry hashes a layer of gigabytes from a slow disk before it answers."""
_LONGEST_ANSWER = 64 * 1024
_PAUSE = 0.2

Body = Union[bytes, BinaryIO, None]


class RegistryClient:
    """Asks a registry at a Unix socket, and uploads to it.

    owner: the user that the registry runs as; a server of another user is sent nothing. Methods
    raise RegistryError.
    """

    def __init__(self, path: Path, owner: int) -> None:
        self.path = path
        self.owner = owner

    def wait_ready(self, seconds: float) -> None:
        """Wait until the registry answers."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._expect("GET", "/v2/", 200)
                return
            except RegistryError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)

    def has_image(self, image: ImageRef) -> bool:
        """Whether the registry has an image, by its digest."""
        url = f"/v2/{image.repository}/manifests/{image.digest}"
        return self._exists(url, {"Accept": ", ".join(MANIFESTS)})

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the registry has a blob in the repository."""
        return self._exists(f"/v2/{repository}/blobs/{digest}")

    def upload_blob(self, repository: str, digest: str, content: BinaryIO, size: int) -> None:
        """Upload a blob. The registry verifies its digest."""
        headers = self._expect("POST", f"/v2/{repository}/blobs/uploads/", 202)
        # The registry names the server as it was asked for: only the path counts.
        place = urllib.parse.urlsplit(headers.get("location", ""))
        query = f"{place.query}&" if place.query else ""
        url = f"{place.path}?{query}{urllib.parse.urlencode({'digest': digest})}"
        sent = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self._expect("PUT", url, 201, sent, content)

    def upload_manifest(self, repository: str, digest: str, kind: str, content: bytes) -> None:
        """Upload a manifest under its digest, which the registry verifies."""
        url = f"/v2/{repository}/manifests/{digest}"
        self._expect("PUT", url, 201, {"Content-Type": kind}, content)

    def _exists(self, url: str, headers: Optional[Mapping[str, str]] = None) -> bool:
        status, _, _ = self._ask("HEAD", url, headers)
        if status not in (200, 404):
            raise RegistryError(self._describe(f"status {status} for HEAD {url}"))
        return status == 200

    def _expect(
        self,
        method: str,
        url: str,
        expected: int,
        headers: Optional[Mapping[str, str]] = None,
        body: Body = None,
    ) -> Dict[str, str]:
        """Ask, and return the headers of the answer, with their names in lower case."""
        status, found, text = self._ask(method, url, headers, body)
        if status != expected:
            said = f": {text.strip()}" if text.strip() else ""
            raise RegistryError(self._describe(f"status {status} for {method} {url}{said}"))
        return found

    def _ask(
        self,
        method: str,
        url: str,
        headers: Optional[Mapping[str, str]] = None,
        body: Body = None,
    ) -> Tuple[int, Dict[str, str], str]:
        connection = UnixConnection(str(self.path), ANSWER_SECONDS, self.owner)
        try:
            connection.request(method, url, body, dict(headers or {}))
            answer = connection.getresponse()
            text = answer.read(_LONGEST_ANSWER).decode("utf-8", "replace")
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text
        except (OSError, http.client.HTTPException) as error:
            raise RegistryError(self._describe(str(error) or type(error).__name__)) from error
        finally:
            connection.close()

    def _describe(self, found: str) -> str:
        return (
            f"The registry at {self.path} does not answer: {found}. Check its container with"
            " `docker ps --all` and `docker logs`."
        )
