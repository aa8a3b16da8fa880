"""The tables of all engines."""

from __future__ import annotations

from collections.abc import Mapping

from llm_provider.providers.parameters import llamacpp, ollama, vllm
from llm_provider.providers.parameters.table import Table

TABLES: Mapping[str, Mapping[str, Table]] = {
    "llamacpp": llamacpp.TABLES,
    "ollama": ollama.TABLES,
    "vllm": vllm.TABLES,
}
"""By engine and route. Requests to routes without a table are passed on as they are."""
