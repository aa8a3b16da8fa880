"""`make status UPSTREAM=1`: what the hub and registries have, and what cannot be known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts import newer
from scripts.lock import Unresolved
from scripts.newer import main, newer_image, newer_model, newer_versions

HUB = "https://hub.example"
OLD, NEW = "a" * 64, "b" * 64
FILES = [{"place": "owner/m/resolve/0123abcd/m.gguf", "sha256": OLD}]
IMAGE = f"ghcr.io/owner/engine:server@sha256:{OLD}"


def hub_has(monkeypatch: pytest.MonkeyPatch, **headers: str) -> list[str]:
    """A hub that answers with these headers; returns the addresses that are asked for."""
    asked: list[str] = []

    def head(url: str) -> Mapping[str, str]:
        asked.append(url)
        return {name.replace("_", "-"): value for name, value in headers.items()}

    monkeypatch.setattr(newer, "head", head)
    return asked


def registry_has(monkeypatch: pytest.MonkeyPatch, digests: dict[str | None, str]) -> None:
    """A registry with a digest for each architecture, and for all (None)."""

    def digest_of(reference: str, architecture: str | None) -> str:
        assert reference == "ghcr.io/owner/engine:server"
        if architecture not in digests:
            raise Unresolved(f"{reference} has no image for {architecture}")
        return f"sha256:{digests[architecture]}"

    monkeypatch.setattr(newer, "digest_of", digest_of)


def test_the_main_revision_of_a_model_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub_has(monkeypatch, x_linked_etag=f'"{OLD}"')
    assert newer_model(f"{HUB}/", "m", FILES) == ""
    assert asked == [f"{HUB}/owner/m/resolve/main/m.gguf"]
    hub_has(monkeypatch, x_linked_etag=f'"{NEW}"', x_repo_commit="c0ffee")
    assert newer_model(HUB, "m", FILES) == (
        "the hub has another m.gguf at c0ffee. To take it, run `make lock MODEL=m REVISION=main`,"
        " then site.yml"
    )


def test_a_model_without_hashes_at_the_hub_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_has(monkeypatch, x_linked_etag='"a-git-hash"')
    with pytest.raises(Unresolved, match="the hub has no hash of its files"):
        newer_model(HUB, "m", FILES)


@pytest.mark.parametrize(
    ("digests", "differs"),
    [
        ({None: OLD}, False),
        ({None: NEW, "arm64": OLD}, False),
        ({None: NEW, "arm64": NEW}, True),
        ({None: NEW}, True),
    ],
)
def test_the_digest_of_a_tag_is_compared(
    monkeypatch: pytest.MonkeyPatch, digests: dict[str | None, str], differs: bool
) -> None:
    registry_has(monkeypatch, digests)
    found = newer_image(IMAGE, ["amd64", "arm64"])
    assert found == (
        f"the tag stands for another image now: sha256:{NEW}. To take it, set its digest, then"
        " site.yml"
        if differs
        else ""
    )


@pytest.mark.parametrize("image", ["engine:server", f"cache:5000/engine@sha256:{OLD}"])
def test_an_image_without_tag_or_digest_is_not_known(image: str) -> None:
    with pytest.raises(Unresolved, match="it has no tag beside its digest"):
        newer_image(image, [])


def hosts() -> list[dict[str, Any]]:
    serving = {"release": 1, "model": "m", "model_files": FILES, "image": IMAGE}
    return [
        {"host": "pi-02", **serving},
        {"host": "pi-01", **serving},
        {"host": "off", **dict.fromkeys(serving)},
    ]


def test_each_model_and_image_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub_has(monkeypatch, x_linked_etag=OLD)
    registry_has(monkeypatch, {})
    assert newer_versions(hosts(), HUB, []) == [
        f"image {IMAGE} (pi-01, pi-02): not known: ghcr.io/owner/engine:server has no image for"
        " None",
        "model m (pi-01, pi-02): no newer version",
    ]
    assert len(asked) == 1


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_has(monkeypatch, x_linked_etag=OLD)
    registry_has(monkeypatch, {None: OLD})
    file = tmp_path / "status.json"
    file.write_text(json.dumps({"hosts": hosts()}))
    assert main([str(file)]) == 0
    assert capsys.readouterr().out.count("no newer version") == 2
    file.write_text(json.dumps({"hosts": hosts()[2:]}))
    assert main([str(file)]) == 0
    assert capsys.readouterr().out == "No host serves a model.\n"
    file.write_text("no JSON")
    assert main([str(file)]) == 2
    assert "cannot be read as a status" in capsys.readouterr().err
