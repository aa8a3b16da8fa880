"""Who may install an engine, and what the others are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import docker, engine
from sandbox.engine import Machine
from sandbox.errors import SandboxError
from sandbox.steps import Step


@pytest.mark.parametrize(
    ("system", "root", "installs"),
    [
        ("debian", True, True),
        ("ubuntu debian", True, True),
        ("linuxmint ubuntu debian", True, True),
        ("debian", False, False),
        ("fedora", True, False),
        ("", True, False),
    ],
)
def test_packages_are_installed_by_root_on_debian_and_its_children(
    system: str, root: bool, installs: bool
) -> None:
    assert Machine(system, root).installs is installs


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (Machine("debian", False), "not root"),
        (Machine("fedora", True), "fedora"),
        (Machine("", True), "an unknown system"),
    ],
)
def test_the_others_are_told_in_one_sentence_what_to_install(machine: Machine, why: str) -> None:
    sentence = machine.refusal(["docker.io", "iptables"])
    assert f"this is {why}" in sentence
    assert "install docker.io iptables" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "debian"),
        ('# no value here\nID="linuxmint"\nID_LIKE="ubuntu debian"\n', "linuxmint ubuntu debian"),
        ("", ""),
    ],
)
def test_a_system_is_known_by_its_os_release(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "os-release"
    path.write_text(text)
    assert engine._system_words(path) == words
    assert engine._system_words(tmp_path / "missing") == ""


def test_an_engine_asked_for_elsewhere_is_not_replaced_by_one_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://far:2375")
    monkeypatch.setattr(docker, "answers", lambda: False)
    with pytest.raises(SandboxError, match="DOCKER_HOST is tcp://far:2375, and no Docker engine"):
        engine.install_tools(Step("tools", "tools", lambda step: None), debian=False, ollama=False)
