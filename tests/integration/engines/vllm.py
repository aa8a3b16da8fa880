"""vLLM on this machine's CPU, from PyPI.

`python -m tests.integration.engines.vllm` makes its image.
"""

from __future__ import annotations

import hashlib
import re
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sandbox import hf_model, images, source
from sandbox.instance import LOGS
from sandbox.steps import Runner
from tests.integration.engines.running import HOME, MODELS, Container


class VLLM(Container):
    """It serves the models in Hugging Face's format, made from the others' files."""

    provider: ClassVar[str] = "vllm"
    models: ClassVar[frozenset[str]] = frozenset(MODELS)
    unsupported: ClassVar[Mapping[str, Any]] = {
        "functions": [{"name": "get_weather", "parameters": {}}],
        "repeat_penalty": 1.1,
    }
    overflow: ClassVar[str] = "maximum context length is 4096 tokens"
    malformed: ClassVar[str] = "Input should be a valid"
    schema: ClassVar[str] = "Grammar error: Invalid type: nonsense"
    embeddings: ClassVar[str] = "Not Found"

    def __init__(self, model: str, context: int, parallel: int) -> None:
        super().__init__(model, context, parallel)
        if model == "tools":
            self.words += ["--enable-auto-tool-choice", "--tool-call-parser=hermes"]

    def image(self) -> str:
        image = _image()
        assert image.there, (
            f"{image.reference} is not there: run `python -m tests.integration.engines.vllm`."
        )
        return image.reference

    def weights(self, entry: dict[str, Any]) -> None:
        super().weights(entry)
        # Another file or another writer is another folder: none is written while it is read.
        writer = Path(hf_model.__file__).read_bytes()
        (weights,) = entry["gguf"]["files"]
        tag = images.content_tag({"writer": writer}, weights["sha256"])
        made = HOME / "models" / f".{self.model}-{tag}"
        if not made.exists():
            unfinished = made.with_suffix(".partial")
            hf_model.convert(HOME / "models" / weights["file"], unfinished)
            unfinished.rename(made)
        # Where a plan has it.
        folder = HOME / "models" / f"{self.model}.hf"
        if folder.is_symlink():
            folder.unlink()
        folder.symlink_to(made.name)
        entry["hf"] = {
            **entry["gguf"],
            "quantization": "F16",
            "files": [
                {
                    "file": file.name,
                    "size": file.stat().st_size,
                    "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                }
                for file in sorted(made.iterdir())
            ],
        }

    def busy(self) -> int:
        with urllib.request.urlopen(f"{self.base_url}/metrics", timeout=10) as answer:  # noqa: S310
            text = answer.read().decode()
        return sum(
            int(float(n)) for n in re.findall(r"(?m)^vllm:num_requests_running\S* (.+)", text)
        )


ENGINE = VLLM


def _image() -> images.Image:
    return images.vllm(images.table(source.decide()))


def main() -> None:
    """Make the image, where it is not there."""
    runner = Runner(LOGS)
    runner.add("image-vllm", "Image vllm", partial(images.make, image=_image()))
    runner.execute()


if __name__ == "__main__":
    main()
