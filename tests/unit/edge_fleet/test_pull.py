"""Which hosts can run site.yml on themselves, and what they get of the control machine."""

from __future__ import annotations

from typing import Any

import pytest

from edge_fleet.pull import STATE, pull
from edge_fleet.settings import check_settings

GIVEN = {
    "board_pull_repository": "https://git.example/fleet.git",
    "board_pull_version": "v1.2.0",
    "board_pull_signers": "/keys/signers",
}
KEY = "the-key-of-the-kitchen"


def decided(printed: str = "Python 3.11.2\n", issued: bool = False, **given: Any) -> dict[str, Any]:
    return pull(GIVEN | given, "kitchen", printed, KEY, issued)


@pytest.mark.parametrize("printed", ["Python 3.11.2\n", "Python 3.13.5\n"])
def test_a_host_with_a_newer_python_can_pull(printed: str) -> None:
    assert decided(printed)["problems"] == []


@pytest.mark.parametrize(
    ("printed", "found"),
    [("Python 3.10.12\n", "3.10.12"), ("Python 3.8.10", "3.8.10"), ("", "missing")],
)
def test_an_older_python_is_refused_by_name(printed: str, found: str) -> None:
    assert decided(printed)["problems"] == [
        f"kitchen: Python on the host does not fit: python3 is {found}, and ansible-pull needs 3.11"
        " or newer. Remove board_pull_repository of the host, and run site.yml for it from the"
        " control machine."
    ]


@pytest.mark.parametrize("name", ["board_pull_version", "board_pull_signers"])
@pytest.mark.parametrize("empty", [None, ""])
def test_version_and_signers_are_required(name: str, empty: str | None) -> None:
    (problem,) = pull(GIVEN | {name: empty}, "kitchen", "Python 3.11.2", KEY, False)["problems"]
    assert problem.startswith(f"kitchen: {name} is missing. Name a ")


def test_the_authority_s_key_stays_where_it_is() -> None:
    (problem,) = decided(issued=True)["problems"]
    assert "its private key must not leave the control machine" in problem
    assert problem.startswith("kitchen: llm_tls does not fit: ")


def test_a_host_gets_its_own_secrets() -> None:
    found = decided(
        llm_api_keys={"guests": "a-key-of-some-guests"}, llm_models_token="hf-token", llm_model="m"
    )["variables"]
    assert found["llm_api_key"] == KEY
    assert found["llm_api_keys"] == {"guests": "a-key-of-some-guests"}
    assert found["llm_models_token"] == "hf-token"
    # The inventory has the rest.
    assert "llm_model" not in found
    assert not {name for name in found if name.startswith("board_pull")}


def test_files_of_the_control_machine_are_copied() -> None:
    found = decided(llm_tls_certificate="~/kitchen.pem", llm_tls_private_key="/tls/kitchen.key")
    assert found["files"] == {"certificate.pem": "~/kitchen.pem", "key.pem": "/tls/kitchen.key"}
    assert found["variables"]["llm_tls_private_key"] == f"{STATE}/files/key.pem"
    assert "llm_tls_ca" not in found["variables"]


def test_no_path_of_the_control_machine_is_left() -> None:
    found = decided(
        board_secrets_dir="/srv/keys", board_facts_file="/srv/facts/kitchen.json",
        board_catalogue_dir="/srv/catalogues", llm_tls_ca="/srv/ca.pem",
        llm_models_ca="/srv/ca.pem",
    )["variables"]  # fmt: skip
    assert "/srv" not in str(found)


def test_the_run_is_the_host_s_own() -> None:
    found = decided()["variables"]
    assert (found["ansible_connection"], found["ansible_become"]) == ("local", False)
    assert found["board_reboot"] is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("board_pull_repository", "https://user:password@git.example/fleet.git"),
        ("board_pull_repository", "http://git.example/fleet.git"),
        ("board_pull_repository", "https://git.example/fleet.git --upload-pack=x"),
        ("board_pull_repository", "https://git.example/%n.git"),
        ("board_pull_version", "--help"),
        ("board_pull_version", "a b"),
        ("board_pull_inventory", "../mine"),
        ("board_pull_inventory", "/etc/hosts"),
        ("board_pull_interval", 5),
    ],
)
def test_a_value_that_a_unit_or_a_command_could_misread_is_refused(
    name: str, value: object
) -> None:
    _, problems = check_settings(GIVEN | {name: value})
    assert [problem.partition(" is invalid")[0] for problem in problems] == [name]


@pytest.mark.parametrize(
    "value",
    [
        "https://git.example:8443/~me/fleet.git",
        "ssh://git@git.example/fleet",
        "file:///media/usb/fleet.git",
    ],
)
def test_addresses_of_repositories(value: str) -> None:
    assert check_settings(GIVEN | {"board_pull_repository": value})[1] == []
