"""`python -m llm_provider.api`: the earlier name of `python -m llm_provider.server`."""

from __future__ import annotations

import sys

from llm_provider.server.process import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
