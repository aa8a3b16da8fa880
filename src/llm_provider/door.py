"""`python -m llm_provider.door`: the socket holder, by the name that compose files on hosts use.

A host keeps the image of its running socket holder while later releases are installed, so that a
later compose file may start an earlier image; after a rollback an earlier compose file may start a
later image. This name works in both.
"""

from __future__ import annotations

import sys

from llm_provider.standalone.socket_holder import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
