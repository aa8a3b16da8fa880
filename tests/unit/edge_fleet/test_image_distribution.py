"""Which images a fleet's registry must have, and who pulls them from there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from edge_fleet.image_distribution import cached_images, registry_clients
from edge_fleet.plan.build import deployment_plan

SMALL = "smollm2-135m"
MANY = ("a", "b", "c")

Host = Callable[..., dict[str, Any]]

OLLAMA = "docker.io/ollama/ollama:0.34.0@sha256:"
PYTHON = "docker.io/library/python:3.13-slim-trixie@sha256:"


@pytest.fixture
def pulling(pi: dict[str, Any], catalogues: dict[str, Any]) -> Host:
    """A host that pulls through c, at 192.0.2.13; `images` are those it has."""

    def make(images: tuple[str, ...] = (), **given: Any) -> dict[str, Any]:
        given = {"llm_model": SMALL, "llm_images_cache": "c"} | given
        found = copy.deepcopy(pi)
        found["deployment"]["images"] = list(images)
        plan = deployment_plan(found, "any", given, catalogues, images_cache="192.0.2.13")
        return {"preflight_state": found, "preflight_plan": plan}

    return make


def test_a_registry_is_to_have_what_others_lack(pulling: Host) -> None:
    hosts = {"a": pulling(), "b": pulling(), "c": pulling()}
    images = cached_images(hosts, MANY, "c")
    assert [each["outside"].rpartition(":")[0] + ":" for each in images] == [OLLAMA, PYTHON]
    assert [each["reference"].partition("@")[0] for each in images] == [
        "192.0.2.13:5000/docker.io/ollama/ollama",
        "192.0.2.13:5000/docker.io/library/python",
    ]
    engine, python = images
    assert hosts["a"]["preflight_plan"]["engine"]["image"] == engine["reference"]
    assert hosts["a"]["preflight_plan"]["api"]["base_image"] == python["reference"]
    # As long as one of those who can be reached lacks it.
    both = (engine["reference"], python["reference"])
    hosts = {"a": pulling(both), "b": pulling(both[:1]), "c": pulling(both)}
    assert cached_images(hosts, MANY, "c") == [python]
    assert cached_images(hosts, ["a", "c"], "c") == []


def test_a_registry_is_not_asked_by_those_who_do_not_use_it(pulling: Host) -> None:
    hosts = {
        "a": pulling(llm_images_cache=None),
        "b": pulling(llm_images_cache="a"),
        "c": pulling(llm_parallel=0),
        "d": {},
    }
    assert cached_images(hosts, list(hosts), "c") == []
    assert len(cached_images(hosts, list(hosts), "a")) == 2


def test_the_base_of_a_chat_api_that_is_to_be_built(pulling: Host) -> None:
    """Its image is there and its base is gone: the base is needed only where another is built."""
    engine, python = cached_images({"a": pulling()}, ["a"], "c")
    host = pulling((engine["reference"], "edge-llm/chat-api:1"))
    host["preflight_state"]["deployment"]["release"] = {"plan": host["preflight_plan"]}
    assert cached_images({"a": host}, ["a"], "c") == []
    host["stack_bundle"] = {"image": "edge-llm/chat-api:1"}
    assert cached_images({"a": host}, ["a"], "c") == []
    host["stack_bundle"] = {"image": "edge-llm/chat-api:2"}
    assert cached_images({"a": host}, ["a"], "c") == [python]


def test_a_host_without_a_registry_pulls_from_none(pulling: Host) -> None:
    assert cached_images({"a": pulling(llm_images_cache=None)}, ["a"], None) == []


def test_clients_of_a_registry_are_the_inventory_s_addresses(pulling: Host) -> None:
    both = tuple(each["reference"] for each in cached_images({"a": pulling()}, ["a"], "c"))
    hosts = {
        "a": pulling() | {"ansible_host": "192.0.2.11", "board_address": "198.51.100.1"},
        "b": pulling() | {"ansible_host": "192.0.2.12"},
        "c": pulling(),
        "has-them": pulling(both) | {"ansible_host": "192.0.2.14"},
        "other": pulling(llm_images_cache="a") | {"ansible_host": "192.0.2.15"},
    }
    # What a host says of itself, in its facts, is not among them.
    for host in hosts.values():
        host["preflight_state"]["board"]["addresses"] = ["203.0.113.1"]
    assert registry_clients(hosts, list(hosts), "c") == ["198.51.100.1", "192.0.2.12", "c"]
    assert registry_clients(hosts, ["b"], "c") == ["192.0.2.12"]
