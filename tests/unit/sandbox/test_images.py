"""Tags follow content; official images are those of engines.yml that fit this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox import images, ollama
from sandbox.instance import ROOT


def test_a_tag_is_the_same_for_the_same_content_in_any_order() -> None:
    assert images.content_tag({"a": b"1", "b": b"2"}) == images.content_tag({"b": b"2", "a": b"1"})


@pytest.mark.parametrize(
    ("files", "more"),
    [
        ({"a": b"1", "b": b"3"}, ()),
        ({"a": b"1", "c": b"2"}, ()),
        ({"a": b"1"}, ()),
        ({"a": b"1b", "": b"2"}, ()),
        ({"a": b"1", "b": b"2"}, ("",)),
        ({"a": b"1", "b": b"2"}, ("x",)),
    ],
)
def test_any_other_content_is_another_tag(files: dict[str, bytes], more: tuple[str, ...]) -> None:
    assert images.content_tag(files, *more) != images.content_tag({"a": b"1", "b": b"2"})


def test_words_do_not_run_into_each_other() -> None:
    assert images.content_tag({}, "ab", "c") != images.content_tag({}, "a", "bc")


def test_a_changed_parent_changes_its_children_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = images.table("build")
    monkeypatch.setattr(ollama, "VERSION", "9.9.9")
    after = images.table("build")
    changed = {name for name in before if before[name].tag != after[name].tag}
    assert changed == {"ollama"}
    monkeypatch.setattr(images, "_SUITE", "forky")
    assert not {i.tag for i in images.table("build").values()} & {i.tag for i in after.values()}


def test_every_image_comes_after_its_parent() -> None:
    seen: set[str | None] = {None}
    for image in images.table("build").values():
        assert image.base in seen
        seen.add(image.reference)


@pytest.fixture
def engines() -> dict[str, Any]:
    return {
        "api": {"image": "python", "digest": "sha256:1"},
        "engines": {
            "llamacpp": {
                "images": [
                    {"kind": "jetson", "l4t": ["36", "37"], "image": "j", "digest": "sha256:2"},
                    {"kind": "generic", "arch": "aarch64", "image": "a", "digest": "sha256:3"},
                    {"kind": "generic", "arch": "x86_64", "image": "x", "digest": None},
                ]
            },
            "ollama": {"images": [{"image": "o", "digest": "sha256:4"}]},
        },
    }


def test_official_images_are_those_with_a_digest_for_this_machine(engines: dict[str, Any]) -> None:
    assert images.official(engines, "aarch64") == {
        "python": "python@sha256:1",
        "llamacpp": "a@sha256:3",
        "ollama": "o@sha256:4",
    }


def test_an_engine_without_a_digest_for_this_machine_is_built(engines: dict[str, Any]) -> None:
    assert "llamacpp" not in images.official(engines, "x86_64")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_projects_own_table_gives_references_with_digests(machine: str) -> None:
    found = images.official(yaml.safe_load((ROOT / "engines.yml").read_text()), machine)
    assert {"python", "ollama"} <= set(found)
    assert all("@sha256:" in reference for reference in found.values())


def test_a_pulled_image_is_a_label_on_the_official_one() -> None:
    table = images.table("pull")
    official = table["ollama"].official
    assert official is not None
    assert table["ollama"].files == {"Dockerfile": f"FROM {official}\n".encode()}
    assert table["board"].official is None
    assert table["board"].base == table["base"].reference


def test_a_tree_is_read_by_relative_path(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"x")
    assert images.read_tree(tmp_path) == {"sub/file": b"x"}
