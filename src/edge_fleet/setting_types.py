"""Types of inventory variables: the values that each accepts, and the advice for any other value.

A value may arrive as text, since an INI inventory and `-e name=value` have nothing else. Secrets
are never part of a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator

from edge_host.image_ref import is_pinned

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")
_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
_SOURCE = re.compile(r"https?://[^\s@]+|/\S.*")
_PROXY = re.compile(r"https?://\S+")
_BATCH = re.compile(r"([1-9]\d?|100)%|[1-9]\d*")


EngineName = Literal["llamacpp", "ollama", "vllm"]
CacheType = Literal["f16", "q8_0", "q4_0"]
TaskName = Literal["chat", "embedding", "rerank"]


class Advice(NamedTuple):
    """The end of a message about an invalid value, and how the value is shown in the message."""

    text: str
    show: Callable[[object], str] = repr


def plain(value: Any) -> Any:
    """A copy of a value with dict, list and plain scalars only.

    Ansible passes containers that are templated when they are read; pydantic rejects them.
    """
    if isinstance(value, Mapping):
        return {plain(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    # Ansible's tagged scalars are subclasses of these.
    for kind in (str, bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def _whole_number(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\d+", value.strip()):
        return int(value)
    return value


def _boolean(value: object) -> object:
    if isinstance(value, str) and value.strip().lower() in _TRUE + _FALSE:
        return value.strip().lower() in _TRUE
    return value


def _switch(value: object) -> object:
    # YAML reads on and off as booleans.
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _matching(pattern: re.Pattern[str]) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError("the pattern does not match")
        return value

    return AfterValidator(check)


def _image(value: object) -> object:
    texts = list(value.values()) if isinstance(value, dict) else [value]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("not an image")
    return value


def _pinned(value: str) -> str:
    if not is_pinned(value):
        raise ValueError("no digest")
    return value


def _batch(value: object) -> object:
    if isinstance(value, bool) or not _BATCH.fullmatch(str(value)):
        raise ValueError("not a batch")
    return value


def _not_empty(value: list[Any]) -> list[Any]:
    if not value:
        raise ValueError("empty")
    return value


def _hidden(_: object) -> str:
    return "the value is not shown"


def _source(value: object) -> str:
    # A password may be in it.
    return "the address has a user" if "@" in str(value) else repr(value)


_KEY_ADVICE = "16 or more of letters, digits and . _ ~ + / = -"

WholeNumber = Annotated[int, BeforeValidator(_whole_number), Advice("Use a whole number")]
Boolean = Annotated[bool, BeforeValidator(_boolean), Advice("Use true or false")]
Switch = Annotated[
    Literal["auto", "on", "off"], BeforeValidator(_switch), Advice("Use auto, on or off")
]
Text = Annotated[str, Advice("Use text")]
FilePath = Annotated[str, Advice("Use a path")]
AbsolutePath = Annotated[str, _matching(re.compile(r"/.*")), Advice("Use an absolute path")]
PinnedImage = Annotated[
    str, AfterValidator(_pinned), Advice("Use an image with its digest (name@sha256:...)")
]
Image = Annotated[
    str | dict[str, str],
    BeforeValidator(_image),
    Advice("Use an image (name@sha256:...) or a mapping of provider to image"),
]
Key = Annotated[str, _matching(_KEY), Advice(f"Use {_KEY_ADVICE}", _hidden)]
Keys = Annotated[
    list[Annotated[str, _matching(_KEY)]],
    Advice(f"Use a list of keys, each of {_KEY_ADVICE}", _hidden),
]
Names = Annotated[
    list[Annotated[str, _matching(_NAME)]],
    Advice("Use a list of names, each of letters, digits and . _ : / -"),
]
Source = Annotated[
    str,
    _matching(_SOURCE),
    Advice(
        "Use an address without user and password (https://HOST/PATH) or a folder of the control"
        " machine (/PATH)",
        _source,
    ),
]
Proxy = Annotated[str, _matching(_PROXY), Advice("Use http://[USER:PASSWORD@]HOST:PORT", _hidden)]
Batches = Annotated[
    list[Annotated[int | str, BeforeValidator(_batch)]],
    AfterValidator(_not_empty),
    Advice("Use a list of whole numbers from 1 up and of shares such as 25%"),
]
PowerMode = Annotated[str, Advice("Use the name of a power mode, such as MAXN")]
DockerOptions = Annotated[dict[str, Any], Advice("Use a mapping of option to value")]
