"""Which engine to talk to, and how: from arguments, the environment, the board."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import httpx

from llm_provider.errors import ConfigurationError
from llm_provider.http.settings import Timeouts
from llm_provider.http.transports import Verify
from llm_provider.providers.base import LLMProvider
from llm_provider.providers.llamacpp import LlamaCpp
from llm_provider.providers.ollama import Ollama
from llm_provider.providers.settings import EngineSettings
from llm_provider.providers.vllm import VLLM

PROVIDERS: dict[str, type[LLMProvider]] = {
    provider.name: provider for provider in (LlamaCpp, Ollama, VLLM)
}
"""The engines, by their names."""
HARDWARE = {"jetson": LlamaCpp.name, "pi": Ollama.name, "generic": Ollama.name}
"""The provider that suits each kind of board."""

_TEGRA_RELEASE = "etc/nv_tegra_release"
_MODEL_FILES = ("sys/firmware/devicetree/base/model", "proc/device-tree/model")


def get_llm_provider(
    provider: str | None = None,
    *,
    base_url: str | None = None,
    model: str | None = None,
    api_key: str | None = None,
    timeout: float | Timeouts | None = None,
    headers: Mapping[str, str] | None = None,
    verify: Verify = True,
    transport: httpx.AsyncBaseTransport | None = None,
    strict: bool | None = None,
    environ: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
) -> LLMProvider:
    """Return the provider for this host's engine, not yet connected.

    What is not given is taken from `environ`: LLM_PROVIDER (see `choose_provider`),
    LLM_BASE_URL (http://127.0.0.1:11434), LLM_MODEL (required), LLM_API_KEY or the first line of
    the file LLM_API_KEY_FILE (none), LLM_TIMEOUT (seconds of silence allowed, 600),
    CHAT_API_STRICT (1: `strict`). `headers`, `verify`, `transport` and `strict` are as
    `LLMProvider` describes them.
    Raises ConfigurationError with what would be accepted.
    """
    kind = PROVIDERS[choose_provider(provider, environ=environ, root=root)]
    settings = EngineSettings(environ)
    return kind(
        model=model or settings.model,
        base_url=base_url or settings.base_url,
        api_key=api_key or settings.api_key,
        timeout=settings.timeout if timeout is None else timeout,
        headers=headers,
        verify=verify,
        transport=transport,
        strict=settings.strict if strict is None else strict,
    )


def choose_provider(
    provider: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
) -> str:
    """Return a provider's name: the argument, else LLM_PROVIDER, else by the board.

    The board is what HARDWARE says (jetson, pi, generic), else what the files below `root` say:
    a Jetson has /etc/nv_tegra_release or an NVIDIA device-tree model. Jetson: llamacpp; all
    others: ollama. Raises ConfigurationError for an unknown name, listing the known.
    """
    settings = EngineSettings(environ)
    for source, name in (("The provider", provider), ("LLM_PROVIDER", settings.provider)):
        if name:
            if name not in PROVIDERS:
                raise ConfigurationError(
                    f"{source} is {name!r}, which is not known; known are: {', '.join(PROVIDERS)}."
                )
            return name
    hardware = settings.hardware or _detect_hardware(root)
    if hardware not in HARDWARE:
        raise ConfigurationError(
            f"HARDWARE is {hardware!r}, which is not known; known are: {', '.join(HARDWARE)}."
        )
    return HARDWARE[hardware]


def _detect_hardware(root: Path) -> str:
    if (root / _TEGRA_RELEASE).exists():
        return "jetson"
    for name in _MODEL_FILES:
        path = root / name
        if not path.exists():
            continue
        model = path.read_text(errors="replace").strip("\0\n").lower()
        if "nvidia" in model or "jetson" in model:
            return "jetson"
        if "raspberry pi" in model:
            return "pi"
    return "generic"
