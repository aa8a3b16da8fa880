"""llama-server, as the sandbox builds it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any, ClassVar

from tests.integration.engines.running import MODELS, Container


class LlamaServer(Container):
    """It tells itself which slots work."""

    provider: ClassVar[str] = "llamacpp"
    models: ClassVar[frozenset[str]] = frozenset(MODELS)
    unsupported: ClassVar[Mapping[str, Any]] = {
        "functions": [{"name": "get_weather", "parameters": {}}],
    }
    overflow: ClassVar[str] = r"request \(\d+ tokens\) exceeds the available context size"
    malformed: ClassVar[str] = "Expected 'content' to be a string or an array"
    schema: ClassVar[str] = "unrecognized type nonsense"
    embeddings: ClassVar[str] = "does not support embeddings"

    def busy(self) -> int:
        assert self.key_file is not None
        request = urllib.request.Request(  # noqa: S310
            f"{self.base_url}/slots",
            headers={"Authorization": f"Bearer {self.key_file.read_text().strip()}"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return sum(slot["is_processing"] for slot in json.load(answer))


ENGINE = LlamaServer
