"""The settings of the chat API, read from the environment once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llm_provider.errors import ConfigurationError
from llm_provider.providers.settings import read_count, read_number
from llm_provider.server.limits import Limits
from llm_provider.server.token_estimate import IMAGE_TOKENS


@dataclass(frozen=True)
class ServerSettings:
    """What the chat API needs to know besides its engine.

    From the environment: CHAT_API_KEYS_FILE (required; see `key_store`), LLM_HOLD_SECONDS (how long
    a request waits for an engine that is not ready, 60), LLM_DRAIN_SECONDS (how long requests that
    run may go on when the chat API stops or the engine is changed, 30), LLM_MODEL_ALIASES (other
    names of the served model, separated by commas), LLM_ENGINE_FILE (see `engine_file`),
    CHAT_API_DOOR (the socket holder's socket, see `listeners`; none: a port of its own),
    CHAT_API_SOCKET (a Unix socket of its own, none), CHAT_API_NODE_SOCKET (the Unix socket of the
    host's node exporter, none), CHAT_API_CORS_ORIGINS (origins whose pages may
    ask, separated by commas, or `*`; none), CHAT_API_DOCS (1: /docs is served),
    CHAT_API_IMAGE_TOKENS (tokens that an image counts as, 1024), CHAT_API_COMMENT_SECONDS (how
    often a streamed request that waits for its turn gets a comment, which begins the answer, 10),
    CHAT_API_TLS_CERTIFICATE and CHAT_API_TLS_KEY (PEM files for HTTPS, see `tls`; none: HTTP), and
    those of `Limits`.
    The engine's are in `llm_provider.providers.settings`.
    """

    keys_file: Path
    hold_seconds: float
    drain_seconds: float
    aliases: tuple[str, ...]
    engine_file: Path | None
    socket_holder: Path | None
    own_socket: Path | None
    node_socket: Path | None
    tls: tuple[Path, Path] | None
    """Certificate and key."""
    cors_origins: tuple[str, ...]
    docs: bool
    image_tokens: int
    comment_seconds: float
    limits: Limits

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ServerSettings:
        """Read the settings. Raises ConfigurationError, which names what is missing or wrong."""
        keys = environ.get("CHAT_API_KEYS_FILE")
        if not keys:
            raise ConfigurationError(
                "CHAT_API_KEYS_FILE is not set; it must name a file with one API key per line."
            )
        return cls(
            keys_file=Path(keys),
            hold_seconds=read_number(environ, "LLM_HOLD_SECONDS", 60),
            drain_seconds=read_number(environ, "LLM_DRAIN_SECONDS", 30),
            aliases=_names(environ, "LLM_MODEL_ALIASES"),
            engine_file=_path(environ, "LLM_ENGINE_FILE"),
            socket_holder=_path(environ, "CHAT_API_DOOR"),
            own_socket=_path(environ, "CHAT_API_SOCKET"),
            node_socket=_path(environ, "CHAT_API_NODE_SOCKET"),
            tls=_tls(environ),
            cors_origins=_origins(environ),
            docs=_flag(environ, "CHAT_API_DOCS"),
            image_tokens=read_count(environ, "CHAT_API_IMAGE_TOKENS") or IMAGE_TOKENS,
            comment_seconds=read_number(environ, "CHAT_API_COMMENT_SECONDS", 10),
            limits=Limits.from_environ(environ),
        )


def _tls(environ: Mapping[str, str]) -> tuple[Path, Path] | None:
    names = "CHAT_API_TLS_CERTIFICATE", "CHAT_API_TLS_KEY"
    certificate, key = (_path(environ, name) for name in names)
    if certificate and key:
        return certificate, key
    if certificate or key:
        missing, given = names if key else reversed(names)
        raise ConfigurationError(f"{missing} is not set, but {given} is. Set both, or neither.")
    return None


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name)
    return Path(text) if text else None


def _names(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    parts = (part.strip() for part in environ.get(name, "").split(","))
    return tuple(part for part in parts if part)


def _flag(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name) or "0"
    if text not in ("0", "1"):
        raise ConfigurationError(f"{name} is {text!r}; it must be 0 or 1.")
    return text == "1"


def _origins(environ: Mapping[str, str]) -> tuple[str, ...]:
    origins = _names(environ, "CHAT_API_CORS_ORIGINS")
    for origin in origins:
        # A browser compares them letter by letter: a path or a slash at the end matches nothing.
        parts = urlsplit(origin)
        if origin != "*" and origin != f"{parts.scheme}://{parts.netloc}".lower():
            raise ConfigurationError(
                f"CHAT_API_CORS_ORIGINS holds {origin!r}, which is no origin; an origin is * or "
                "such as https://chat.example.com or http://localhost:3000, in lower case and "
                "without a path."
            )
    return origins
