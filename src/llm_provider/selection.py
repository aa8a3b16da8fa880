"""Which engine to talk to, and how: from arguments, the environment, the board."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from llm_provider.base import DEFAULT_BASE_URL, DEFAULT_TIMEOUT, LLMProvider
from llm_provider.engines import PROVIDERS, LlamaCpp, Ollama
from llm_provider.errors import ConfigurationError

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
    timeout: float | None = None,
    environ: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
) -> LLMProvider:
    """Return the provider for this host's engine, not yet connected.

    What is not given is taken from `environ`: LLM_PROVIDER (see `choose_provider`),
    LLM_BASE_URL (http://127.0.0.1:11434), LLM_MODEL (required), LLM_API_KEY or the first line of
    the file LLM_API_KEY_FILE (none), LLM_TIMEOUT (seconds of silence allowed, 600).
    Raises ConfigurationError with what would be accepted.
    """
    kind = PROVIDERS[choose_provider(provider, environ=environ, root=root)]
    return kind(
        model=model or environ.get("LLM_MODEL", ""),
        base_url=base_url or environ.get("LLM_BASE_URL") or DEFAULT_BASE_URL,
        api_key=api_key or _engine_key(environ),
        timeout=number(environ, "LLM_TIMEOUT", DEFAULT_TIMEOUT) if timeout is None else timeout,
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
    for source, name in (
        ("The provider", provider),
        ("LLM_PROVIDER", environ.get("LLM_PROVIDER")),
    ):
        if name:
            if name not in PROVIDERS:
                raise ConfigurationError(
                    f"{source} is {name!r}, which is not known; known are: {', '.join(PROVIDERS)}."
                )
            return name
    hardware = environ.get("HARDWARE") or _detect_hardware(root)
    if hardware not in HARDWARE:
        raise ConfigurationError(
            f"HARDWARE is {hardware!r}, which is not known; known are: {', '.join(HARDWARE)}."
        )
    return HARDWARE[hardware]


def number(environ: Mapping[str, str], name: str, default: float) -> float:
    """Return the number above 0 that `environ` gives for `name`, or `default` where none is set.

    Raises ConfigurationError for anything else.
    """
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigurationError(f"{name} is {text!r}; a number above 0 is needed.")
    return value


def count(environ: Mapping[str, str], name: str) -> int | None:
    """Return the whole number above 0 that `environ` gives for `name`, or None where none is set.

    Raises ConfigurationError for anything else.
    """
    text = environ.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise ConfigurationError(f"{name} is {text!r}; a whole number above 0 is needed.")
    return int(text)


def _engine_key(environ: Mapping[str, str]) -> str | None:
    if key := environ.get("LLM_API_KEY"):
        return key
    path = environ.get("LLM_API_KEY_FILE")
    if not path:
        return None
    try:
        lines = Path(path).read_text().split()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"LLM_API_KEY_FILE cannot be read: {error}.") from error
    if not lines:
        raise ConfigurationError(f"LLM_API_KEY_FILE names {path}, which holds no key.")
    return lines[0]


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
