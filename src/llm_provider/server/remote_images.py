"""Images that a request names by an address, which the engine would fetch.

llama.cpp and vLLM follow any address, also over redirects. An engine on a board has no network, so
that it could fetch none; one that runs elsewhere could be made to ask what only its machine
reaches. So only images within the request are passed on.
"""

from __future__ import annotations

import re

from llm_provider.providers.encoded_body import decode_value
from llm_provider.server.fields import FieldError, Fields

_NAMES = frozenset(f"{kind}_url" for kind in ("audio", "file", "image", "video"))
_SUSPICIOUS = re.compile(
    rb'"(?:url|(?:audio|file|image|video)_url)"\s*+:\s*+"(?!data:)[^":]*+:', re.DOTALL
)
# Letters, _ and : in escapes, which no encoder writes: they could hide a name or an address.
_ESCAPED = re.compile(rb"\\u00(?:[46][1-9a-fA-F]|[57][0-9aA]|3[aA]|5[fF])")


def refuse_remote_images(data: bytes | bytearray, fields: Fields) -> None:
    """Raise FieldError where a body names an image, sound or file by its address.

    Only a body that may do so is decoded. Raises TooManyValuesError for one that is too large.
    """
    if not _is_suspicious(data):
        return
    for name in fields.names:
        value = fields.raw(name) or b""
        if _is_suspicious(value) and _has_address(decode_value(name, value)):
            raise FieldError(
                f"'{name}' is invalid: it names an image or a file by its address, which is not "
                "fetched here. Send the content itself, as data:image/png;base64,...",
                name,
            )


def _is_suspicious(text: bytes | bytearray | memoryview) -> bool:
    return bool(_SUSPICIOUS.search(text) or _ESCAPED.search(text))


def _has_address(value: object) -> bool:
    """Whether an image is named by its address, at any depth: OpenAI's way, or Anthropic's."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            source = one.get("source")
            named = [each for name, each in one.items() if name in _NAMES]
            if isinstance(source, dict) and source.get("type") == "url":
                named.append(source)
            if any(map(_is_address, named)):
                return True
            waiting += one.values()
    return False


def _is_address(value: object) -> bool:
    url = value.get("url") if isinstance(value, dict) else value
    return isinstance(url, str) and ":" in url and not url.startswith("data:")
