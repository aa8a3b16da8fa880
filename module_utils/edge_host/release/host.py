"""A host's deployment folder with all that a change needs to act on it."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Optional

from ..constants import ROOT
from .chat_api import ChatApi
from .compose import Compose
from .docker_api import Docker
from .store import ReleaseStore


def _ignore_step(_: str) -> None:
    pass


class Host:
    """A host: its releases, its Docker engine, and its chat API.

    `on_step` is called with the name of every step before it begins. Tests interrupt there.
    """

    def __init__(
        self,
        root: str = ROOT,
        docker: Optional[Docker] = None,
        on_step: Callable[[str], None] = _ignore_step,
    ) -> None:
        self.root = Path(root)
        self.docker = docker or Docker()
        self.releases = ReleaseStore(self.root)
        self.chat_api = ChatApi(self.root)
        self.compose = Compose(self.root, self.docker)
        self.on_step = on_step
