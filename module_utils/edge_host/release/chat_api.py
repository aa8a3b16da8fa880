"""The chat API as a change steers it: its upstream, the hold of requests, and its status."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from typing import Optional

from ..constants import API_UID
from ..foreign import open_socket
from ..json_data import Facts
from .client_keys import own_key_headers
from .docker_api import send_request
from .hold_lock import HoldLock
from .store import LIVE_ENGINE_FILE, Release, replace_file


class ChatApi:
    """The chat API's processes of a host, which all follow the live engine file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.engine_file = root / LIVE_ENGINE_FILE
        self.hold_lock = HoldLock(self.engine_file, root / "run")

    def switch_upstream(self, engine_file: str, hold: float = 0) -> None:
        """Have the chat API use the engine that the text `engine_file` names.

        `hold`: seconds for which requests are held. A hold ends with this process, even if it is
        killed.
        """
        if hold:
            self.hold_lock.acquire()
            replace_file(self.engine_file, f"{engine_file}LLM_HOLD={hold:g}\n")
        else:
            replace_file(self.engine_file, engine_file)
            self.hold_lock.remove()

    def socket_path(self, release: Release) -> Path:
        """Return the socket of one chat API process, whichever process has the ports."""
        return self._root / "run" / f"{release.service('api')}.sock"

    def read_status(self, release: Release) -> Optional[Facts]:
        """Return the answer of a release's chat API at /ready; None where it does not answer."""
        try:
            headers = own_key_headers(self._root)
            # The chat API's user can write the folder: a link could lead to another program.
            descriptor = open_socket(self.socket_path(release), {API_UID})
            try:
                path = f"/proc/self/fd/{descriptor}"
                _, status = send_request(path, "GET", "/ready", headers, timeout=10)
            finally:
                os.close(descriptor)
        except (OSError, http.client.HTTPException):
            return None
        return status if isinstance(status, dict) and "in_flight" in status else None
