"""`python -m llm_provider`: the same as the `llm-provider` command."""

from __future__ import annotations

import sys

from llm_provider.cli import main

sys.exit(main())
