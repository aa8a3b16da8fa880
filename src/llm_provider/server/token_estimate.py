"""How much of an engine a request takes, before it has run: slots, and tokens of a context that
conversations share. Read from a body's bytes, which are not decoded.

The estimate is made once, when the body has arrived: until then a request only has its place in the
queue, and nothing depends on its size.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

BYTES_PER_TOKEN = 3
"""A token is seldom less than three bytes of JSON; text in escapes (\\uXXXX) is overestimated."""
IMAGE_TOKENS = 1024
"""What one image becomes. Vision models differ: Gemma 3 uses 256 tokens for an image, LLaVA 1.5
576, SmolVLM 64 for each of up to 17 tiles, and Qwen2.5-VL one for 28 x 28 pixels, which is 1,024
for about 900 x 900. Configurable (CHAT_API_IMAGE_TOKENS), since only the served model's own figure
is right."""
# A JSON string's content in base64, either alphabet; some encoders escape the slash.
_BASE64 = rb"(?:[A-Za-z0-9+/=_-]++|\\/)*+"
_PAYLOAD = re.compile(
    # OpenAI's image_url and input_image, wherever they stand.
    rb'"data:[a-zA-Z0-9.+;=\\/-]{1,100}?;base64,' + _BASE64 + rb'"'
    # Anthropic's source.data, OpenAI's input_audio.data and file_data.
    rb'|"(?:data|file_data)"\s*+:\s*+"(?:[A-Za-z0-9+/=_-]|\\/){64}' + _BASE64 + rb'"'
)
# Ollama's list of images.
_IMAGES = re.compile(rb'"images"\s*+:\s*+\[(?:\s*+,?\s*+"' + _BASE64 + rb'")++')
_STRING = re.compile(rb'"' + _BASE64 + rb'"')
_PART = re.compile(rb'"type"\s*+:\s*+"(?:image_url|input_image|image|input_audio)"')


@dataclass(frozen=True)
class PromptSize:
    """`text_bytes`: the body without encoded images; `images`: how many it has or refers to."""

    text_bytes: int = 0
    images: int = 0

    def tokens(self, image_tokens: int = IMAGE_TOKENS) -> int:
        """Return the tokens of the prompt."""
        return math.ceil(self.text_bytes / BYTES_PER_TOKEN) + self.images * image_tokens


@dataclass(frozen=True)
class TokenEstimate:
    """What a request takes: the tokens of its prompt, the most tokens of an answer, and how many
    answers it asks for at once, each of which takes a slot.
    """

    prompt: int = 0
    most: int | None = None
    answers: int = 1

    def tokens(self, share: float) -> float:
        """Return the estimated tokens. `share` is what each conversation may count on; half of it
        is kept for an answer that nobody bounds.
        """
        return self.prompt + self.answers * (share / 2 if self.most is None else self.most)


def measure_prompt(body: bytes | bytearray | memoryview) -> PromptSize:
    """Count a body's text and images.

    Images are parts of a message with such a type, and strings of base64 where the APIs have them:
    data URLs, `data`, `file_data` and Ollama's `images`. A quote in a text is escaped, so that a
    text that quotes a part is not taken for one. Sound counts as an image.
    """
    encoded = payloads = 0
    for found in _PAYLOAD.finditer(body):
        encoded += found.end() - found.start()
        payloads += 1
    for found in _IMAGES.finditer(body):
        encoded += found.end() - found.start()
        # Less the name, which is a string of the same letters.
        payloads += sum(1 for _ in _STRING.finditer(body, found.start(), found.end())) - 1
    parts = sum(1 for _ in _PART.finditer(body))
    return PromptSize(max(len(body) - encoded, 0), max(parts, payloads))


NOTHING = TokenEstimate()
