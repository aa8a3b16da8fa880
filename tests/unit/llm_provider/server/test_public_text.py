"""Texts of errors without the addresses of this host's own network."""

from __future__ import annotations

import pytest

from llm_provider.server.public_text import engine_address, without_addresses


@pytest.mark.parametrize(
    ("text", "public"),
    [
        (
            "llamacpp at http://engine-a:8080 is loading its model: Loading model",
            "llamacpp is loading its model: Loading model",
        ),
        (
            "The engine is not ready: ollama at http://[::1]:11434 is not reachable: x. "
            "Loading failed: ollama at https://gpu.example.com refused with status 500: y",
            "The engine is not ready: ollama is not reachable: x. "
            "Loading failed: ollama refused with status 500: y",
        ),
        ("vllm at http://10.0.0.7:8000, or not", "vllm, or not"),
        ("see http://engine-a:8080.", "see [address]."),
        ('Post "http://127.0.0.1:41311/completion": EOF', 'Post "[address]": EOF'),
        ("dial tcp 127.0.0.1:41311: connect: refused", "dial tcp [address]: connect: refused"),
        ("Connect call failed ('172.18.0.3', 8080)", "Connect call failed ('[address]', 8080)"),
        ("lost http://user:secret@example.com/x now", "lost [address] now"),
        ("see http://engine-a:8080/x, http://[fd00::1]:80/y", "see [address], [address]"),
        ("[fe80::1]:8080 and 192.168.1.7.", "[address] and [address]."),
        ("http://[broken and http://printer.lan/x", "[address] and [address]"),
        # What is not of this network stays, and so does what is no address.
        ("no image at https://example.com/a.png?b=1", "no image at https://example.com/a.png?b=1"),
        ("8.8.8.8:53, 1.2.3.4.5, 10.0.0.1.2, 999.1.1.1", None),
        ("a model: llama at rest; context 4096", None),
    ],
)
def test_addresses_are_hidden(text: str, public: str | None) -> None:
    assert without_addresses(text) == (text if public is None else public)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("llamacpp at http://engine-a:8080 is loading", "http://engine-a:8080"),
        ("The engine is not ready: vllm at https://x/y.", "https://x/y"),
        ("no image at https://example.com/a.png", None),
        ("ollama has no /v1/x here: 'ollama at http://what-a-client-wrote'", None),
    ],
)
def test_the_engines_address_for_the_log(text: str, address: str | None) -> None:
    assert engine_address(text) == address
