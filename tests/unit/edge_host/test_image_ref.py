"""References of images as Docker reads them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_host.image_ref import ImageRef, authority, is_pinned

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag"),
    [
        ("python", "docker.io", "library/python", None),
        ("python:3.13", "docker.io", "library/python", "3.13"),
        ("docker.io/python:3.13", "docker.io", "library/python", "3.13"),
        ("index.docker.io/python", "docker.io", "library/python", None),
        ("ollama/ollama:0.34.0", "docker.io", "ollama/ollama", "0.34.0"),
        ("a/b/c", "docker.io", "a/b/c", None),
        ("ghcr.io/ggml-org/llama.cpp:server", "ghcr.io", "ggml-org/llama.cpp", "server"),
        ("ghcr.io/engine", "ghcr.io", "engine", None),
        ("registry.example:5000/engine", "registry.example:5000", "engine", None),
        ("registry:5000/engine:1", "registry:5000", "engine", "1"),
        ("Registry/engine:1", "Registry", "engine", "1"),
        ("registry/engine:1", "docker.io", "registry/engine", "1"),
        ("localhost/engine", "localhost", "engine", None),
        ("localhost", "docker.io", "library/localhost", None),
        ("192.0.2.2:5000/a/b:1", "192.0.2.2:5000", "a/b", "1"),
        ("[2001:db8::1]:5000/engine:1", "[2001:db8::1]:5000", "engine", "1"),
        ("[2001:db8::1]/engine", "[2001:db8::1]", "engine", None),
    ],
)
def test_parts(text: str, registry: str, repository: str, tag: str | None) -> None:
    assert ImageRef.parse(text) == ImageRef(registry, repository, tag)
    assert ImageRef.parse(f"{text}@{DIGEST}") == ImageRef(registry, repository, tag, DIGEST)


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", ":", "@", "a/", "/a", "a//b", "a:", ":1", "a:1:2", "a@", f"@{DIGEST}"),
        *("a@sha256:12", f"a@{DIGEST}0", f"a@{DIGEST.upper()}", f"a@{DIGEST}@{DIGEST}"),
        *("a@latest", f"a@sha512:{'0' * 128}", f"a@{DIGEST}\n"),
        *("Engine", "a/Engine", "a b", " a", "a\n", "a:b c", f"a:{'1' * 129}", "a:-1", "a..b"),
        *(
            "-a.example/b",
            "a.example-/b",
            "a.example:/b",
            "a.example:port/b",
            "[::1/b",
            "https://a.b/c",
        ),
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ValueError, match=r"^The image reference is invalid: .*\. Use \["):
        ImageRef.parse(text)
    assert not is_pinned(text)


def test_only_a_digest_pins() -> None:
    assert is_pinned(f"python@{DIGEST}")
    assert is_pinned(f"python:3.13@{DIGEST}")
    assert not is_pinned("python:3.13")


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("docker.io/ollama/ollama:0.34.0", "ollama:0.34.0"),
        (f"docker.io/ollama/ollama:0.34.0@{DIGEST}", "ollama:0.34.0@01234567"),
        (f"registry.example:5000/engine@{DIGEST}", "engine@01234567"),
    ],
)
def test_short(text: str, short: str) -> None:
    assert ImageRef.parse(text).short == short


@pytest.mark.parametrize(
    ("host", "expected"),
    [("192.0.2.1", "192.0.2.1:5000"), ("2001:db8::1", "[2001:db8::1]:5000"), ("a", "a:5000")],
)
def test_authority(host: str, expected: str) -> None:
    assert authority(host, 5000) == expected


bounded = settings(deadline=None, database=None)
names = st.from_regex(r"[a-z0-9]{1,4}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
registries = st.one_of(
    st.just("localhost"),
    st.from_regex(r"[a-z0-9]{1,5}(?:\.[a-zA-Z0-9]{1,5}){1,2}(?::[0-9]{1,5})?", fullmatch=True),
    st.from_regex(r"[A-Z][a-z0-9]{0,5}", fullmatch=True),
    st.builds(authority, st.ip_addresses().map(str), st.integers(1, 65535)),
)
references = st.builds(
    ImageRef,
    registries,
    st.lists(names, min_size=1, max_size=3).map("/".join),
    st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}", fullmatch=True),
    st.none() | st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True),
)


@bounded
@given(references)
def test_text_and_parts_are_the_same(reference: ImageRef) -> None:
    assert ImageRef.parse(str(reference)) == reference
    assert is_pinned(str(reference)) is (reference.digest is not None)


@bounded
@given(references, registries)
def test_a_cache_has_a_reference_of_the_same_content(reference: ImageRef, cache: str) -> None:
    """The reference in the cache is valid, keeps the digest, and ends with the same repository."""
    cached = ImageRef.parse(str(reference.through_cache(cache)))
    assert (cached.registry, cached.tag, cached.digest) == (cache, None, reference.digest)
    assert cached.repository.endswith(f"/{reference.repository}")


@bounded
@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_is_refused(text: str) -> None:
    """Whatever is read gives text that reads as the same."""
    try:
        reference = ImageRef.parse(text)
    except ValueError:
        return
    assert ImageRef.parse(str(reference)) == reference
