"""`python -m llm_provider.server`: a process that is the chat API and nothing else."""

import sys

from llm_provider.server.lean_imports import lean_imports

with lean_imports():
    from llm_provider.server.process import main

sys.exit(main())
