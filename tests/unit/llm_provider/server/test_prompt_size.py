"""The estimate of a prompt's tokens."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_provider.server.token_estimate import IMAGE_TOKENS, PromptSize, measure_prompt

PHOTO = base64.b64encode(bytes(range(256)) * 4000).decode()  # 1.4 MB: all letters of base64
TEXT = "What is this? " * 10


def of(body: Any, **options: Any) -> PromptSize:
    return measure_prompt(json.dumps(body, **options).encode())


def test_text_counts_three_bytes_a_token() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": TEXT}]}).encode()
    found = measure_prompt(body)
    assert found == PromptSize(len(body), 0)
    assert found.tokens() == -(-len(body) // 3)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PHOTO}"}},
        {"type": "image_url", "image_url": f"data:image/png;base64,{PHOTO}"},
        {"type": "input_image", "image_url": f"data:image/svg+xml;charset=x;base64,{PHOTO}"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PHOTO}},
        {"type": "input_audio", "input_audio": {"data": PHOTO, "format": "wav"}},
        {"type": "file", "file": {"file_data": PHOTO}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PHOTO}"}},
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_an_image_counts_as_its_tokens(part: dict[str, Any], count: int) -> None:
    content = [{"type": "text", "text": TEXT}, *[part] * count]
    found = of({"model": "m", "messages": [{"role": "user", "content": content}]})
    assert found.images == count
    assert found.text_bytes < 1000
    assert found.tokens(500) == -(-found.text_bytes // 3) + 500 * count
    assert found.tokens() - found.tokens(0) == IMAGE_TOKENS * count


def test_images_of_ollama() -> None:
    images = [PHOTO, PHOTO[:400], PHOTO]
    body = {"messages": [{"role": "user", "content": TEXT, "images": images}] * 2}
    for options in ({}, {"indent": 2}, {"separators": (",", ":")}):
        found = of(body, **options)
        assert found.images == 6
        assert found.text_bytes < 1000


def test_a_slash_may_be_escaped() -> None:
    part = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PHOTO}"}}
    raw = json.dumps({"messages": [{"content": [part]}]}).replace("/", "\\/").encode()
    found = measure_prompt(raw)
    assert found.images == 1
    assert found.text_bytes < 200
    raw = json.dumps({"source": {"data": PHOTO}, "images": [PHOTO]}).replace("/", "\\/").encode()
    assert measure_prompt(raw).images == 2


def test_an_image_elsewhere_on_the_net_counts_too() -> None:
    url = "https://images.example/a.jpg"
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image", "source": {"type": "url", "url": url}},
    ]
    assert of({"messages": [{"content": content}]}).images == 2


def test_text_that_quotes_an_image_is_text() -> None:
    quoted = json.dumps({"type": "image_url", "url": f"data:image/png;base64,{PHOTO[:5000]}"})
    found = of({"messages": [{"role": "user", "content": quoted}]})
    assert found.images == 0
    assert found.text_bytes > 5000


def test_text_without_spaces_is_text() -> None:
    found = of({"messages": [{"role": "user", "content": "A" * 10_000}], "prompt": "B" * 10_000})
    assert found.images == 0
    assert found.text_bytes > 20_000


def test_short_data_is_text() -> None:
    assert of({"data": "abc", "images": []}).images == 0


def test_bytes_of_any_kind_are_read() -> None:
    raw = json.dumps({"images": [PHOTO]}).encode()
    assert measure_prompt(bytearray(raw)) == measure_prompt(memoryview(raw)) == measure_prompt(raw)


@pytest.mark.parametrize(
    "part",
    [
        b'"data:',
        b'"images":[',
        b'"images":["a',
        b'"data":"' + b"A" * 63 + b'"',
        b'"type":"image",',
        b'"data:image/' + b"a" * 90,
        b'"images":["a","a",,',
        b"\\/",
        b'"',
        b'"data":"' + b"A" * 70 + b" ",
    ],
)
def test_no_body_takes_long(part: bytes) -> None:
    """4 MiB that the patterns nearly match: the time grows with the size only."""
    body = part * (4 * 2**20 // len(part))
    started = time.process_time()
    measure_prompt(body)
    assert time.process_time() - started < 5


@given(st.binary(max_size=300))
def test_anything_has_an_estimate(data: bytes) -> None:
    assert measure_prompt(data).tokens() >= 0
