"""Copies of images in a registry: their references there, and what is copied."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge_fleet.plan.image import through_cache
from edge_host.image_ref import ImageRef
from edge_host.registry import RegistryError, copy_command, has, mirror

DIGEST = "sha256:" + "0123456789abcdef" * 4
OLLAMA = ImageRef("192.0.2.11:5000", "docker.io/ollama/ollama", None, DIGEST)


@pytest.mark.parametrize(
    ("outside", "insecure", "verified"),
    [
        ("docker.io/ollama/ollama:0.34.0", [], "true"),
        ("docker.io/ollama/ollama:0.34.0", ["registry.example:5000"], "true"),
        ("registry.example:5000/ollama:1", ["old:1", "registry.example:5000"], "false"),
        ("registry.example/ollama:1", ["registry.example:5000"], "true"),
    ],
)
def test_copy_command(outside: str, insecure: list[str], verified: str) -> None:
    wanted = ImageRef.parse(f"192.0.2.11:5000/there/ollama@{DIGEST}")
    upstream = ImageRef.parse(f"{outside}@{DIGEST}")
    assert copy_command("127.0.0.1:5001", wanted, upstream, insecure) == [
        *("skopeo", "copy", "--quiet", "--retry-times", "3", "--multi-arch", "all"),
        *("--preserve-digests", f"--src-tls-verify={verified}", "--dest-tls-verify=false"),
        f"docker://{outside.rpartition(':')[0]}@{DIGEST}",
        # A registry takes a manifest by a tag; nobody asks for it by that.
        "docker://127.0.0.1:5001/there/ollama:0123456789ab",
    ]


@pytest.mark.parametrize("outside", ["ollama/ollama:0.34.0", "registry.example:5000/engine"])
def test_what_the_plan_pulls_is_what_is_copied(outside: str) -> None:
    """Both sides of one name: the plan makes it, and the registry gets it."""
    outside = f"{outside}@{DIGEST}"
    reference = ImageRef.parse(through_cache(outside, "192.0.2.11"))
    assert reference.registry == "192.0.2.11:5000"
    command = copy_command("127.0.0.1:5001", reference, ImageRef.parse(outside), [])
    assert command[-1] == f"docker://127.0.0.1:5001/{reference.repository}:0123456789ab"


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
    assert has(registry.name, OLLAMA) is True
    assert has(registry.name, OLLAMA._replace(digest=DIGEST[:-1] + "0")) is False
    assert has(registry.name, OLLAMA._replace(repository="docker.io/ollama/other")) is False
    ((method, path, accepted), *_) = registry.seen
    assert (method, path) == ("HEAD", f"/v2/docker.io/ollama/ollama/manifests/{DIGEST}")
    # An index of platforms, too: without being accepted it would not be found by its digest.
    for kind in ("docker.distribution.manifest.list.v2", "oci.image.index.v1"):
        assert f"application/vnd.{kind}+json" in accepted.split(", ")


IMAGES = [
    {"reference": str(OLLAMA), "outside": f"docker.io/ollama/ollama:0.34.0@{DIGEST}"},
    {
        "reference": f"192.0.2.11:5000/docker.io/library/python@{DIGEST}",
        "outside": f"python@{DIGEST}",
    },
]


@pytest.mark.parametrize("check", [True, False])
def test_what_the_registry_lacks_is_copied_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, check: bool
) -> None:
    log = tmp_path / "log"
    (tmp_path / "skopeo").write_text(f'#!/bin/sh\necho "$*" >> {log}\n')
    (tmp_path / "skopeo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert mirror(registry.name, [*IMAGES, *IMAGES], [], check) == [f"python@{DIGEST}"]
    assert log.exists() is not check
    if not check:
        (line,) = log.read_text().splitlines()
        assert f"docker://docker.io/library/python@{DIGEST}" in line


def test_a_copy_that_fails(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "skopeo").write_text('#!/bin/sh\necho "no such host" >&2\nexit 1\n')
    (tmp_path / "skopeo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RegistryError) as caught:
        mirror(registry.name, IMAGES, [], False)
    assert str(caught.value) == (
        f"The image python@{DIGEST} could not be copied into the registry: no such host"
    )


def test_a_host_without_skopeo(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RegistryError, match=r"^skopeo is missing: .*\. Install it\.$"):
        mirror(registry.name, IMAGES, [], False)


@pytest.mark.parametrize(
    ("outside", "message"),
    [
        ("Python", r"^The image reference is invalid: 'Python'\. Use \["),
        ("python:3", r"^The image reference has no digest: 'python:3'\. Use NAME@sha256:DIGEST\.$"),
    ],
)
def test_what_cannot_be_copied(registry: Registry, outside: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        mirror(registry.name, [{**IMAGES[0], "outside": outside}], [], True)


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
def test_a_registry_that_does_not_say(registry: Registry, status: int) -> None:
    registry.status = status
    message = f"^The registry at {registry.name} does not answer: status {status}\\. Check its"
    with pytest.raises(RegistryError, match=message):
        mirror(registry.name, IMAGES, [], True)


def test_a_registry_that_is_not_there(registry: Registry) -> None:
    registry.stop()
    with pytest.raises(RegistryError, match="Connection refused"):
        mirror(registry.name, IMAGES, [], True)
