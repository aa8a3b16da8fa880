"""`python -m llm_suite`."""

from __future__ import annotations

import sys

from llm_suite.command import main

if __name__ == "__main__":
    sys.exit(main())
