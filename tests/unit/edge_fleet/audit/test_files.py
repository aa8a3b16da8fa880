"""Checks of files: owners, modes, links."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.edge_fleet.audit.hosts import Criticised, file, only

FILES = [
    (
        file("lib/x.pyz", uid=10010),
        "Only root and the project's users can write to the project's files",
        "/opt/edge-llm/lib/x.pyz belongs to the user 10010.",
    ),
    (
        file("models/a.gguf", uid=10012),
        "Only root and the project's users can write to the project's files",
        "/opt/edge-llm/models/a.gguf belongs to the user 10012.",
    ),
    (
        file("models/.fetch/bundle", "folder", "0755", uid=10010),
        "Only root and the project's users can write to the project's files",
        "/opt/edge-llm/models/.fetch/bundle belongs to the user 10010.",
    ),
    (
        file("run/x", uid=1000),
        "Only root and the project's users can write to the project's files",
        "/opt/edge-llm/run/x belongs to the user 1000.",
    ),
    (
        file("releases/0001", "folder", "0777"),
        "Only root and the project's users can write to the project's files",
        "/opt/edge-llm/releases/0001 is writable for every user (0777).",
    ),
    (
        file("releases/0001", "folder", "0775", gid=100),
        "Only root and the project's users can write to the project's files",
        "/opt/edge-llm/releases/0001 is writable for the group 100 (0775).",
    ),
    (
        file("models/.fetch/bundle", "link", "0777", target="/etc"),
        "The project's folders have no links but its own",
        "/opt/edge-llm/models/.fetch/bundle is a link to /etc.",
    ),
    (
        file("current", "link", "0777", target="../../tmp/x"),
        "The project's folders have no links but its own",
        "/opt/edge-llm/current is a link to ../../tmp/x.",
    ),
    (
        file("secrets/engine_key", mode="0644"),
        "Secrets are readable for the project's users only",
        "/opt/edge-llm/secrets/engine_key has mode 0644.",
    ),
    (
        file("secrets/engine_key", mode="0640", gid=100),
        "Secrets are readable for the project's users only",
        "/opt/edge-llm/secrets/engine_key has mode 0640.",
    ),
    (
        file("secrets/tls-1", "folder", mode="0755"),
        "Secrets are readable for the project's users only",
        "/opt/edge-llm/secrets/tls-1 has mode 0755.",
    ),
]
ADVICE_OF_FILES = {
    "Only root and the project's users can write to the project's files": (
        "Find out who changed it; then chown and chmod it, or remove it and run site.yml."
    ),
    "The project's folders have no links but its own": "Find out who made it, and remove it.",
    "Secrets are readable for the project's users only": (
        "chmod go-rwx it, and replace the keys in it."
    ),
}


@pytest.mark.parametrize(("wrong", "check", "found"), FILES)
def test_files(
    facts: dict[str, Any], criticised: Criticised, wrong: dict[str, Any], check: str, found: str
) -> None:
    kept = [each for each in facts["files"] if each["path"] != wrong["path"]]
    facts["files"] = [*kept, wrong]
    assert only(criticised(facts)) == ("failed", check, found, ADVICE_OF_FILES[check])


def test_the_files_of_a_registry_are_examined(
    facts: dict[str, Any], criticised: Criticised
) -> None:
    path = "/opt/edge-llm-registry"
    facts["roots"].append(path)
    facts["files"] += [
        {**file("", "folder", "0755"), "path": path},
        {**file("", "folder", "0755", uid=10013, gid=10013), "path": f"{path}/images"},
        {**file("", mode="0666"), "path": f"{path}/reads.yml"},
    ]
    assert only(criticised(facts))[2] == f"{path}/reads.yml is writable for every user (0666)."


def test_many_problems_are_counted(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["files"] += [file(f"models/{number}", mode="0666") for number in range(7)]
    found = only(criticised(facts))[2]
    assert found.endswith("/models/4 is writable for every user (0666); and 2 more.")


def test_a_hostile_host_prints_one_line(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["files"].append(file("run/\x1b[2J\npassed", mode="0666"))
    facts["files"].append(file("run/" + "x" * 3000, mode="0666"))
    found = only(criticised(facts))[2]
    assert found.startswith(
        "/opt/edge-llm/run/\\x1b[2J\\npassed is writable for every user (0666); "
    )
    assert len(found) == 2003 and found.endswith("xxx...")


def test_files_that_were_not_read(facts: dict[str, Any], criticised: Criticised) -> None:
    facts["all_files"] = False
    assert only(criticised(facts)) == (
        "failed",
        "All of the project's files were examined",
        "Reading ended after 14 files.",
        "Remove what is not needed.",
    )
