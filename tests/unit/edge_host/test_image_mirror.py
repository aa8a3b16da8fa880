"""Images into a registry: what they are called there, and whether it has them already."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from edge_fleet.plan.image import through_cache
from library.image_mirror import copy_words, has, inside, untagged

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("reference", "repository"),
    [
        ("192.0.2.11:5000/docker.io/ollama/ollama", "docker.io/ollama/ollama"),
        ("cache/docker.io/library/python", "docker.io/library/python"),
        ("cache:5000/registry.example-5000/engine", "registry.example-5000/engine"),
    ],
)
def test_inside(reference: str, repository: str) -> None:
    assert inside(f"{reference}@{DIGEST}") == (repository, DIGEST)


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("docker.io/ollama/ollama:0.34.0", "docker.io/ollama/ollama"),
        ("docker.io/ollama/ollama", "docker.io/ollama/ollama"),
        ("ghcr.io/ggml-org/llama.cpp:server-b10108", "ghcr.io/ggml-org/llama.cpp"),
        # A colon before the last slash is a port's.
        ("registry.example:5000/engine:1", "registry.example:5000/engine"),
        ("registry.example:5000/engine", "registry.example:5000/engine"),
        ("python:3.13", "python"),
        ("python", "python"),
    ],
)
def test_untagged(name: str, without: str) -> None:
    assert untagged(f"{name}@{DIGEST}") == f"{without}@{DIGEST}"


@pytest.mark.parametrize(
    ("outside", "insecure", "verified"),
    [
        ("docker.io/ollama/ollama:0.34.0", [], "true"),
        ("docker.io/ollama/ollama:0.34.0", ["registry.example:5000"], "true"),
        ("registry.example:5000/ollama:1", ["old:1", "registry.example:5000"], "false"),
        ("registry.example/ollama:1", ["registry.example:5000"], "true"),
    ],
)
def test_copy_words(outside: str, insecure: list[str], verified: str) -> None:
    image = {
        "reference": f"192.0.2.11:5000/there/ollama@{DIGEST}",
        "outside": f"{outside}@{DIGEST}",
    }
    assert copy_words("127.0.0.1:5001", image, insecure) == [
        *("skopeo", "copy", "--quiet", "--retry-times", "3", "--multi-arch", "all"),
        *("--preserve-digests", f"--src-tls-verify={verified}", "--dest-tls-verify=false"),
        f"docker://{outside.rpartition(':')[0]}@{DIGEST}",
        # A registry takes a manifest by a tag; nobody asks for it by that.
        "docker://127.0.0.1:5001/there/ollama:0123456789ab",
    ]


@pytest.mark.parametrize("outside", ["ollama/ollama:0.34.0", "registry.example:5000/engine"])
def test_what_the_plan_pulls_is_what_is_copied(outside: str) -> None:
    """Both sides of one name: through_cache makes it, and inside and copy_words take it apart."""
    outside = f"{outside}@{DIGEST}"
    reference = through_cache(outside, "192.0.2.11")
    assert reference.startswith("192.0.2.11:5000/")
    words = copy_words("127.0.0.1:5001", {"reference": reference, "outside": outside}, [])
    assert words[-1] == f"docker://127.0.0.1:5001/{inside(reference)[0]}:0123456789ab"


class Registry:
    """One on this machine's loopback that has `manifests`, or answers with `status` whatever."""

    def __init__(self) -> None:
        self.manifests = {f"/v2/docker.io/ollama/ollama/manifests/{DIGEST}"}
        self.status = 0
        self.seen: list[tuple[str, str, str]] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                registry.seen.append((self.command, self.path, self.headers["Accept"]))
                there = self.path in registry.manifests
                self.send_response(registry.status or (200 if there else 404))
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.name = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.stop()


def test_whether_a_registry_has_an_image(registry: Registry) -> None:
    assert has(registry.name, "docker.io/ollama/ollama", DIGEST) is True
    assert has(registry.name, "docker.io/ollama/ollama", DIGEST[:-1] + "0") is False
    assert has(registry.name, "docker.io/ollama/other", DIGEST) is False
    ((method, path, accepted), *_) = registry.seen
    assert (method, path) == ("HEAD", f"/v2/docker.io/ollama/ollama/manifests/{DIGEST}")
    # An index of platforms, too: without being accepted it would not be found by its digest.
    for kind in ("docker.distribution.manifest.list.v2", "oci.image.index.v1"):
        assert f"application/vnd.{kind}+json" in accepted.split(", ")


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
def test_a_registry_that_does_not_say(registry: Registry, status: int) -> None:
    registry.status = status
    with pytest.raises(OSError, match=f"^{registry.name} answered with status {status}$"):
        has(registry.name, "docker.io/ollama/ollama", DIGEST)


def test_a_registry_that_is_not_there(registry: Registry) -> None:
    registry.stop()
    with pytest.raises(OSError, match="Connection refused"):
        has(registry.name, "docker.io/ollama/ollama", DIGEST)
