"""vLLM on this machine's CPU, from PyPI; `python -m tests.engines.vllm` makes its image."""

from __future__ import annotations

import hashlib
import re
import urllib.request
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from sandbox import docker, hf_model, images, models, source
from sandbox.instance import LOGS
from sandbox.steps import Runner
from tests.engines import running
from tests.engines.running import CHAINS, HOME, MODELS, Container, free_port
from tests.unit.project.test_templates import compose, env

_GATEWAY = "{{(index .IPAM.Config 0).Gateway}}"
_KEYED = 'VLLM_API_KEY="$(cat /run/secrets/engine_key)" exec vllm "$@"'


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
        self.model, self.context, self.parallel = model, context, parallel
        self.name = f"edge-llm-vllm-{model}-{parallel}x{context}"
        port = free_port()
        # At 127.0.0.1 Docker itself takes connections, and breaks them while vLLM does not listen;
        # at this address it lets vLLM's machine refuse them, as the chat API's container sees it.
        gateway = docker.docker("network", "inspect", "bridge", f"--format={_GATEWAY}")
        self.base_url = f"http://{gateway}:{port}"
        self.key_file = running._key()
        plan = _plan(model, context, parallel)
        words = running._words(compose(plan)["services"]["engine"], env(plan), port)
        words = [word.replace("127.0.0.1:", f"{gateway}:") for word in words]
        at = words.index(plan["engine"]["image"])
        self._words = [
            # Its processes share memory: 400 MB of it, where a container has 64.
            "--shm-size=512m",
            # There is no compiler, and what it made in /tmp could not be run.
            "--env=TORCH_COMPILE_DISABLE=1",
            *("--env=VLLM_NO_USAGE_STATS=1", "--env=HF_HUB_OFFLINE=1"),
            "--entrypoint=sh",
            *words[: at + 1],
        ]
        self._words += ["-c", _KEYED, "vllm", *words[at + 1 :]]
        # Unsaid it would take most of the machine's memory. One more, for blocks that are not full.
        room = plan["memory"]["kv_cache"] * (parallel + 1)
        self._words.append(f"--kv-cache-memory-bytes={room}")
        if model == "tools":
            self._words += ["--enable-auto-tool-choice", "--tool-call-parser=hermes"]

    def busy(self) -> int:
        with urllib.request.urlopen(f"{self.base_url}/metrics", timeout=10) as answer:  # noqa: S310
            text = answer.read().decode()
        return sum(
            int(float(n)) for n in re.findall(r"(?m)^vllm:num_requests_running\S* (.+)", text)
        )


ENGINE = VLLM


def _image() -> images.Image:
    return images.vllm(images.table(source.decide()))


def _plan(model: str, context: int, parallel: int) -> dict[str, Any]:
    reference = _image().reference
    catalogues = running._catalogues()
    entry = catalogues["models"][model]
    entry["hf"] = _weights(model, entry["gguf"])
    return running._plan("vllm", reference, model, context, parallel, catalogues)


def _weights(model: str, gguf: Mapping[str, Any]) -> dict[str, Any]:
    """The model in the other format, in the folder of the models; its entry in models.yml."""
    folder = HOME / "models" / f"{model}-hf"
    file = HOME / "models" / gguf["file"] if model in CHAINS else models.place(dict(gguf))
    if not file.exists():
        file = models.place(dict(gguf))
    weights = folder / "model.safetensors"
    if not weights.exists():
        hf_model.convert(file, folder)
    return {
        **gguf,
        "file": folder.name,
        "size": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "quantization": "F16",
    }


def main() -> None:
    """Make the image, where it is not there."""
    runner = Runner(LOGS)
    runner.add("image-vllm", "Image vllm", partial(images.make, image=_image()))
    runner.execute()


if __name__ == "__main__":
    main()
