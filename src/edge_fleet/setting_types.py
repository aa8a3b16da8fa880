"""Types of inventory variables: the values that each accepts, and the advice for any other value.

A value may arrive as text, since an INI inventory and `-e name=value` have nothing else. Secrets
are never part of a message.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

from edge_fleet.host_names import subject_name
from edge_fleet.text import join_choices
from edge_host.image_ref import is_pinned

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")
_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
_SUITE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SOURCE = re.compile(r"https?://[^\s@]+|/\S.*")
_PROXY = re.compile(r"https?://\S+")
_BATCH = re.compile(r"([1-9]\d?|100)%|[1-9]\d*")
# As browsers send it: in lower case, without a path, and without the port that the scheme implies.
_ORIGIN = re.compile(
    r"\*|(?!http://[^/]*:80$|https://[^/]*:443$)"
    r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[1-9]\d{0,4})?"
)


EngineName = Literal["llamacpp", "ollama", "vllm"]
CacheType = Literal["f16", "q8_0", "q4_0"]
TaskName = Literal["chat", "embedding", "rerank"]


class Advice(NamedTuple):
    """The end of a message about an invalid value, and how the value is shown in the message."""

    text: str
    show: Callable[[object], str] = repr


class InvalidPartError(ValueError):
    """A part of a value is invalid. The text is what a message has after `NAME is invalid: `."""


def variable(
    default: Any, example: Any, description: str, default_text: str = "", **more: Any
) -> Any:
    """A field of the schema. `default_text` says how a default of None is decided."""
    return Field(
        default,
        description=description,
        examples=[example],
        json_schema_extra={"default_text": default_text},
        **more,
    )


def parts_of(kind: Any) -> list[Any]:
    """A type and the types in it."""
    return [kind, *(part for each in get_args(kind) for part in parts_of(each))]


def field_choices(field: FieldInfo) -> list[str]:
    """The values of a field that has a fixed choice; empty for any other."""
    kinds = parts_of(field.annotation)
    return next((list(get_args(kind)) for kind in kinds if get_origin(kind) is Literal), [])


def field_advice(field: FieldInfo) -> Advice:
    """What a message about an invalid value of the field ends with."""
    kinds = parts_of(field.annotation)
    metadata = [*field.metadata, *(each for kind in kinds for each in _metadata(kind))]
    found = [each for each in metadata if isinstance(each, Advice)]
    return found[0] if found else Advice(f"Use {join_choices(field_choices(field))}")


def field_bounds(field: FieldInfo) -> str:
    """The bounds of a number, as a message and docs/variables.md have them; else empty."""
    above = [each.gt for each in field.metadata if isinstance(each, Gt)]
    low = [each.ge for each in field.metadata if isinstance(each, Ge)]
    high = [each.le for each in field.metadata if isinstance(each, Le)]
    if above:
        return f" above {above[0]}" + (f" and up to {high[0]}" if high else "")
    if not low:
        return ""
    return f" from {low[0]} to {high[0]}" if high else f" from {low[0]} up"


def _metadata(kind: Any) -> tuple[object, ...]:
    found: tuple[object, ...] = getattr(kind, "__metadata__", ())
    return found


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


def number_of(value: object) -> object:
    """The number that a text is; any other value as it is."""
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value) if "." in value else int(value)
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


def _host_name(value: str) -> str:
    if subject_name(value) is None:
        raise ValueError("neither a name nor an address")
    return value


def _image(value: object) -> object:
    texts = list(value.values()) if isinstance(value, dict) else [value]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("not an image")
    return value


def _pinned(value: str) -> str:
    if not is_pinned(value):
        raise ValueError("no digest")
    return value


def _listen_address(value: str) -> str:
    """Say what is wrong: each of these is a plausible value."""
    text = value.strip().removeprefix("[").removesuffix("]")
    host, slash, _ = text.partition("/")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if subject_name(host) and not slash:
            raise InvalidPartError(
                f"{value!r} is a name. Use an IP address of the host, such as 192.0.2.10."
            ) from None
        raise
    if slash:
        raise InvalidPartError(f"{value!r} has a mask. Use the address alone: {host}.")
    if address.is_unspecified:
        raise InvalidPartError(
            f"{value!r} stands for all addresses, which are the default. Remove the variable, or"
            " use one address of the host."
        )
    if address.is_link_local or address.is_multicast:
        raise InvalidPartError(
            f"{value!r} is a {'multicast' if address.is_multicast else 'link-local'} address. Use"
            " an address of the host that clients reach from everywhere."
        )
    return str(address)


def _network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


def _batch(value: object) -> object:
    if isinstance(value, bool) or not _BATCH.fullmatch(str(value)):
        raise ValueError("not a batch")
    return value


def _not_empty(value: list[Any]) -> list[Any]:
    if not value:
        raise ValueError("empty")
    return value


def hidden(_: object) -> str:
    """What a message shows of a secret."""
    return "the value is not shown"


def _source(value: object) -> str:
    # A password may be in it.
    return "the address has a user" if "@" in str(value) else repr(value)


def is_key(value: object) -> bool:
    """Whether a value may be a key of the chat API."""
    return isinstance(value, str) and bool(_KEY.fullmatch(value))


KEY_ADVICE = "16 or more of letters, digits and . _ ~ + / = -"

WholeNumber = Annotated[int, BeforeValidator(_whole_number), Advice("Use a whole number")]
Seconds = Annotated[float, BeforeValidator(number_of), Advice("Use a number of seconds")]
Share = Annotated[float, BeforeValidator(number_of), Advice("Use a number such as 0.8,")]
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
Key = Annotated[str, _matching(_KEY), Advice(f"Use {KEY_ADVICE}", hidden)]
Names = Annotated[
    list[Annotated[str, _matching(_NAME)]],
    Advice("Use a list of names, each of letters, digits and . _ : / -"),
]
SuiteNames = Annotated[
    list[Annotated[str, _matching(_SUITE)]],
    Advice("Use a list of names of test suites, such as chat and tools"),
]
HostNames = Annotated[
    list[Annotated[str, AfterValidator(_host_name)]],
    Advice("Use a list of host names (kitchen.local, *.example.org) and IP addresses"),
]
Origins = Annotated[
    list[Annotated[str, _matching(_ORIGIN)]],
    Advice(
        "Use a list of origins as browsers send them, such as https://chat.example or"
        " http://localhost:3000: in lower case, with neither a path nor the scheme's own port. A *"
        " stands for all"
    ),
]
ListenAddress = Annotated[
    str,
    AfterValidator(_listen_address),
    Advice("Use an IPv4 or IPv6 address of the host, such as 192.0.2.10 or 2001:db8::10"),
]
Networks = Annotated[
    list[Annotated[str, AfterValidator(_network)]],
    Advice("Use a list of IP addresses and networks, such as 192.0.2.10 and 2001:db8::/32"),
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
Proxy = Annotated[str, _matching(_PROXY), Advice("Use http://[USER:PASSWORD@]HOST:PORT", hidden)]
Batches = Annotated[
    list[Annotated[int | str, BeforeValidator(_batch)]],
    AfterValidator(_not_empty),
    Advice("Use a list of whole numbers from 1 up and of shares such as 25%"),
]
PowerMode = Annotated[str, Advice("Use the name of a power mode, such as MAXN")]
DockerOptions = Annotated[dict[str, Any], Advice("Use a mapping of option to value")]
