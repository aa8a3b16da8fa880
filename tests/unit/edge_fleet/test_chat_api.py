"""The chat API's variables, and its part of the plan."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from edge_fleet.chat_api_settings import Limits
from edge_fleet.plan.build import deployment_plan
from edge_fleet.plan.chat_api import DEFAULT, ChatApi, address_problems, plan_chat_api
from edge_fleet.settings import check_settings
from edge_host.unit_files.sockets import build_service
from llm_provider.server.limits import Limits as ServerLimits
from tests.unit.edge_fleet.conftest import OWN_IMAGE
from tests.unit.edge_fleet.test_settings import problem

MIB = 1024**2
IMAGE: dict[str, Any] = {"llm_image": OWN_IMAGE}
COUNTS = [name for name, field in Limits.model_fields.items() if isinstance(field.default, int)]
PER_ADDRESS = Limits().max_connections_per_address
SECONDS = [name for name in Limits.model_fields if name not in COUNTS]


def planned(vision: bool = False, **variables: Any) -> ChatApi:
    settings, problems = check_settings(variables)
    assert problems == []
    chat_api, problems = plan_chat_api(settings, vision)
    assert problems == []
    return chat_api


# llm_limits


def test_limits_are_those_of_the_chat_api() -> None:
    theirs = {each.name: each.default for each in fields(ServerLimits)}
    assert theirs.pop("trusted_proxies") == theirs.pop("allowed_networks") == ()
    ours = {name: field.default for name, field in Limits.model_fields.items()}
    assert ours == theirs
    assert {name: type(value) for name, value in ours.items()} == {
        name: type(value) for name, value in theirs.items()
    }


def accepted(name: str, value: float) -> bool:
    """Whether a limit is valid; the schema and the chat API must agree."""
    problems = check_settings({"llm_limits": {name: value}})[1]
    try:
        ServerLimits.from_environ({f"CHAT_API_{name.upper()}": str(value)})
    except ValueError as error:
        if "is invalid" in str(error):
            assert problems != [], name
            return False
    assert problems == [], name
    return True


@pytest.mark.parametrize("name", COUNTS)
def test_bounds_of_counts_are_those_of_the_chat_api(name: str) -> None:
    assert [accepted(name, value) for value in (1, 10**15 - 1)] == [True, True]
    assert [accepted(name, value) for value in (0, -1, 10**15, 1.5)] == [False] * 4


@pytest.mark.parametrize("name", SECONDS)
def test_bounds_of_times_are_those_of_the_chat_api(name: str) -> None:
    assert [accepted(name, value) for value in (0.001, 1, 1e9)] == [True] * 3
    assert [accepted(name, value) for value in (0, -1, float("inf"), float("nan"))] == [False] * 4


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"max_headers": 0}, "max_headers is 0. Use a whole number from 1 to 999999999999999."),
        ({"max_headers": True}, "max_headers is True. Use a whole number from 1 to 9999999999999"),
        ({"max_headers": "many"}, "max_headers is 'many'. Use a whole number from 1 to 9999999999"),
        ({"body_seconds": 0}, "body_seconds is 0. Use a number of seconds above 0."),
        ({"body_seconds": "soon"}, "body_seconds is 'soon'. Use a number of seconds above 0."),
        ({"body_seconds": True}, "body_seconds is True. Use a number of seconds above 0."),
        (
            {"max_header": 9, "max_headers": 0},
            "'max_header' is no limit. Did you mean max_headers? docs/variables.md lists the"
            " limits.",
        ),
        ({"trusted_proxies": ["192.0.2.1"]}, "'trusted_proxies' is no limit. docs/variables.md"),
        ({1: 2}, "'1' is no limit. docs/variables.md lists the limits."),
        ([1], "[1]. Use a mapping of limit to value."),
    ],
)
def test_an_invalid_limit_is_named(value: object, message: str) -> None:
    assert message in problem("llm_limits", value)
    assert problem("llm_limits", value).startswith("llm_limits is invalid: ")
    assert problem("llm_limits", value).endswith(".")


def test_all_invalid_limits_are_in_one_message() -> None:
    assert problem("llm_limits", {"max_headers": 0, "max_bodies": 1, "body_seconds": -1}) == (
        "llm_limits is invalid: max_headers is 0. Use a whole number from 1 to 999999999999999."
        " body_seconds is -1. Use a number of seconds above 0."
        " 'max_bodies' is no limit. Did you mean max_body_bytes? docs/variables.md lists the"
        " limits."
    )


def test_limits_may_be_text() -> None:
    given = {"max_headers": "50", "body_seconds": " 2.5 ", "header_seconds": "3"}
    limits = check_settings({"llm_limits": given})[0].llm_limits
    assert (limits.max_headers, limits.body_seconds, limits.header_seconds) == (50, 2.5, 3)


# Browsers, proxies, images


@pytest.mark.parametrize(
    "origin",
    [
        "https://chat.example",
        "http://localhost:3000",
        "http://192.0.2.1:8080",
        "https://[2001:db8::1]",
        "http://chat.example:443",
        "chrome-extension://abcdefgh",
        "app://obsidian.md",
        "*",
    ],
)
def test_origins(origin: str) -> None:
    assert planned(llm_cors_origins=[origin]).environment == {"CHAT_API_CORS_ORIGINS": origin}


@pytest.mark.parametrize(
    "value",
    [
        *("**", "chat.example", "https://", "https://chat.example/", "https://chat.example/app"),
        *("HTTPS://chat.example", "https://Chat.example", "https://chat.example:443"),
        *("http://chat.example:80", "https://a,b", "https://u@chat.example", "null", "", 7),
    ],
)
def test_what_no_browser_sends_as_an_origin(value: object) -> None:
    assert problem("llm_cors_origins", [value]) == (
        f"llm_cors_origins is invalid: {[value]!r}. Use a list of origins as browsers send them,"
        " such as https://chat.example or http://localhost:3000: in lower case, with neither a path"
        " nor the scheme's own port. A * stands for all."
    )


def test_a_list_is_not_a_text() -> None:
    assert "'https://chat.example'. Use a list" in problem(
        "llm_cors_origins", "https://chat.example"
    )


@pytest.mark.parametrize("proxy", ["192.0.2.10", "192.0.2.7/24", "2001:db8::/32"])
def test_proxies_are_read_by_the_chat_api(proxy: str) -> None:
    environment = planned(llm_trusted_proxies=[proxy, "198.51.100.1"]).environment
    assert environment == {"CHAT_API_TRUSTED_PROXIES": f"{proxy},198.51.100.1"}
    assert len(ServerLimits.from_environ(environment).trusted_proxies) == 2


@pytest.mark.parametrize("proxy", ["proxy.example", "192.0.2.0/33", "192.0.2.1,192.0.2.2", 1, ""])
def test_an_invalid_proxy(proxy: object) -> None:
    assert problem("llm_trusted_proxies", [proxy]) == (
        f"llm_trusted_proxies is invalid: {[proxy]!r}. Use a list of IP addresses and networks,"
        " such as 192.0.2.10 and 2001:db8::/32."
    )


@pytest.mark.parametrize("network", ["board.example", "192.0.2.0/33", 1])
def test_an_invalid_network(network: object) -> None:
    assert problem("llm_allowed_networks", [network]) == (
        f"llm_allowed_networks is invalid: {[network]!r}. Use a list of IP addresses and networks,"
        " such as 192.0.2.10 and 2001:db8::/32."
    )


def test_networks_are_read_by_the_chat_api() -> None:
    environment = planned(llm_allowed_networks=["192.0.2.7/24", "2001:db8::/32"]).environment
    assert environment == {"CHAT_API_ALLOWED_NETWORKS": "192.0.2.7/24,2001:db8::/32"}
    assert len(ServerLimits.from_environ(environment).allowed_networks) == 2


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("192.0.2.10/24", "'192.0.2.10/24' has a mask. Use the address alone: 192.0.2.10."),
        (
            "kitchen.local",
            "'kitchen.local' is a name. Use an IP address of the host, such as 192.0.2.10.",
        ),
        (
            "0.0.0.0",
            "'0.0.0.0' stands for all addresses, which are the default. Remove the variable, or use"
            " one address of the host.",
        ),
        (
            "::",
            "'::' stands for all addresses, which are the default. Remove the variable, or use one"
            " address of the host.",
        ),
        (
            "fe80::1%eth0",
            "'fe80::1%eth0' is a link-local address. Use an address of the host that clients reach"
            " from everywhere.",
        ),
        (
            "224.0.0.1",
            "'224.0.0.1' is a multicast address. Use an address of the host that clients reach from"
            " everywhere.",
        ),
        (
            "192.0.2.300",
            "'192.0.2.300'. Use an IPv4 or IPv6 address of the host, such as 192.0.2.10 or"
            " 2001:db8::10.",
        ),
        (
            8000,
            "8000. Use an IPv4 or IPv6 address of the host, such as 192.0.2.10 or 2001:db8::10.",
        ),
    ],
)
def test_an_invalid_address_to_listen_at(value: object, reason: str) -> None:
    assert problem("llm_listen_address", value) == f"llm_listen_address is invalid: {reason}"


def test_a_misspelt_address_to_listen_at() -> None:
    _, (found,) = check_settings({"llm_listen_adress": "192.0.2.10"})
    assert "Did you mean llm_listen_address?" in found


@pytest.mark.parametrize(
    ("settings", "url", "reason"),
    [
        ({}, "http://192.0.2.11:8000", ""),
        ({"llm_listen_address": "192.0.2.10"}, "http://192.0.2.10:8000", ""),
        ({"llm_listen_address": "2001:DB8::0:10"}, "http://[2001:db8::10]:8000", ""),
        ({"llm_listen_address": "192.0.2.10"}, "http://kitchen.example:8000", ""),
        (
            {"llm_listen_address": "192.0.2.10"},
            "http://192.0.2.11:8000",
            "the chat API would listen at 192.0.2.10 alone, and clients reach the host at"
            " 192.0.2.11 (board_address). Use one of them for both.",
        ),
        (
            {"llm_listen_address": "127.0.0.1"},
            "http://127.0.0.1:8000",
            "only the host itself reaches 127.0.0.1. Use another address of the host, or set"
            " board_url to the address of the server in front.",
        ),
        (
            {"llm_listen_address": "::1", "board_url": "https://kitchen.example"},
            "https://kitchen.example",
            "",
        ),
    ],
)
def test_clients_reach_the_address(settings: dict[str, str], url: str, reason: str) -> None:
    found = address_problems(check_settings(settings)[0], url)
    assert found == ([f"llm_listen_address does not fit: {reason}"] if reason else [])


@pytest.mark.parametrize("value", [0, 1_000_001, "many"])
def test_invalid_tokens_of_an_image(value: object) -> None:
    assert problem("llm_image_tokens", value) == (
        f"llm_image_tokens is invalid: {value!r}. Use a whole number from 1 to 1000000."
    )


# The plan


def test_a_chat_api_with_defaults_has_no_environment_of_its_own() -> None:
    assert planned().environment == {}
    assert planned() == DEFAULT


def test_every_setting_reaches_the_chat_api() -> None:
    limits: dict[str, float] = {name: index + 9 for index, name in enumerate(COUNTS)}
    limits |= {"max_header_bytes": 10_000, "max_connections": 10_000, "max_queued_body_bytes": 9999}
    limits |= {name: index + 0.5 for index, name in enumerate(SECONDS)}
    chat_api = planned(
        llm_cors_origins=["https://a.example", "https://b.example"],
        llm_api_docs=True,
        llm_strict="yes",
        llm_image_tokens=256,
        llm_trusted_proxies=["192.0.2.10"],
        llm_allowed_networks=["192.0.2.0/24"],
        llm_limits=limits,
    )
    environment = dict(chat_api.environment)
    read = ServerLimits.from_environ(environment)
    assert {name: getattr(read, name) for name in Limits.model_fields} == limits
    of_limits = {f"CHAT_API_{name.upper()}" for name in limits}
    assert {name: each for name, each in environment.items() if name not in of_limits} == {
        "CHAT_API_CORS_ORIGINS": "https://a.example,https://b.example",
        "CHAT_API_DOCS": "1",
        "CHAT_API_STRICT": "1",
        "CHAT_API_IMAGE_TOKENS": "256",
        "CHAT_API_TRUSTED_PROXIES": "192.0.2.10",
        "CHAT_API_ALLOWED_NETWORKS": "192.0.2.0/24",
    }


def test_the_part_cannot_be_changed() -> None:
    chat_api = planned(llm_strict=True)
    with pytest.raises(FrozenInstanceError):
        chat_api.memory_limit = 1  # type: ignore[misc] # this is what is tested
    with pytest.raises(TypeError):
        chat_api.environment["x"] = "1"  # type: ignore[index] # this is what is tested


def test_a_model_with_vision_gets_larger_bodies() -> None:
    assert planned(vision=True).environment == {
        "CHAT_API_MAX_BODY_BYTES": str(20 * MIB),
        "CHAT_API_MAX_QUEUED_BODY_BYTES": str(128 * MIB),
    }
    given = {"max_body_bytes": 4 * MIB, "max_queued_body_bytes": 32 * MIB}
    assert planned(vision=True, llm_limits=given).environment == {
        "CHAT_API_MAX_QUEUED_BODY_BYTES": str(32 * MIB)
    }


def limit_problem(vision: bool = False, **limits: int) -> str:
    settings, problems = check_settings({"llm_limits": limits})
    assert problems == []
    (found,) = plan_chat_api(settings, vision)[1]
    return found


def test_limits_that_contradict_each_other_are_in_one_message() -> None:
    assert limit_problem(max_connections_per_address=513) == (
        "llm_limits does not fit: max_connections_per_address 513, more than max_connections 512"
        " (the default). Lower the first or raise the second."
    )
    assert limit_problem(vision=True, max_queued_body_bytes=MIB, max_header_bytes=4096) == (
        "llm_limits does not fit: max_request_line_bytes 8192 (the default), more than"
        " max_header_bytes 4096; max_body_bytes 20971520 (the default), more than"
        " max_queued_body_bytes 1048576. Lower the first or raise the second."
    )


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("max_request_line_bytes", "max_header_bytes"),
        ("max_connections_per_address", "max_connections"),
        ("max_body_bytes", "max_queued_body_bytes"),
    ],
)
def test_contradictions_are_those_of_the_chat_api(smaller: str, larger: str) -> None:
    environment = {f"CHAT_API_{smaller.upper()}": "200", f"CHAT_API_{larger.upper()}": "100"}
    with pytest.raises(ValueError, match="200, more than"):
        ServerLimits.from_environ(environment)
    given = {smaller: 200, larger: 100}
    assert f"{smaller} 200, more than {larger} 100" in limit_problem(False, **given)
    environment[f"CHAT_API_{larger.upper()}"] = "200"
    ServerLimits.from_environ(environment)
    planned(llm_limits={smaller: 200, larger: 200})


def test_contradicting_limits_are_refused(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    given = IMAGE | {"llm_limits": {"max_connections": 8}}
    assert deployment_plan(jetson, "orin", given, catalogues)["problems"] == [
        f"orin: llm_limits does not fit: max_connections_per_address {PER_ADDRESS} (the default),"
        " more than max_connections 8. Lower the first or raise the second."
    ]


@pytest.mark.parametrize(
    "fields", [{"expires": "2027-01-01"}, {"requests_per_minute": 5}, {"share": 2}]
)
def test_the_main_key_has_no_limits(fields: dict[str, object]) -> None:
    key = "a-key-that-is-long-enough"
    given = {"llm_api_key": key, "llm_api_keys": {"alice": {"key": key, **fields}}}
    settings, problems = check_settings(given)
    assert problems == []
    assert plan_chat_api(settings)[1] == [
        "llm_api_keys does not fit: alice has the key of llm_api_key, which has no expiry, rate or"
        " share. Use another key for one of them."
    ]
    assert planned(llm_api_key=key, llm_api_keys={"alice": key}) == DEFAULT
    other = {"alice": {"key": "another-key-that-is-long-enough", **fields}}
    assert planned(llm_api_key=key, llm_api_keys=other) == DEFAULT


# Memory


@pytest.mark.parametrize(
    ("vision", "limits", "mib"),
    [
        (False, {}, 224),  # 96 + 512 / 8 + 48 + 2 * 4, rounded up
        (True, {}, 336),  # 96 + 512 / 8 + 128 + 2 * 20, rounded up
        (False, {"max_connections": 4096}, 672),
        (False, {"max_queued_body_bytes": 8 * MIB}, 176),
    ],
)
def test_the_memory_limit_follows_the_limits(
    vision: bool, limits: dict[str, int], mib: int
) -> None:
    assert planned(vision, llm_limits=limits).memory_limit == mib * MIB


def test_the_boards_memory_includes_the_chat_api(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    plan = deployment_plan(jetson, "orin", IMAGE, catalogues)
    assert plan["memory"]["system"] == 752 * MIB
    assert plan["api"]["memory_limit"] == 224 * MIB
    unit = build_service(Path(plan["root"]), "python3", Path("p.pyz"))
    assert "MemoryMax=32M\n" in unit
    assert "socket_holder_memory" not in plan["api"]
    assert plan["network"]["memory_limit"] == 16 * MIB
    more = deployment_plan(
        jetson, "orin", IMAGE | {"llm_limits": {"max_queued_body_bytes": 148 * MIB}}, catalogues
    )
    assert more["memory"]["system"] == (752 + 96) * MIB
    # What a host compares before it loads two engines does not contain it.
    assert more["memory"]["total"] - more["memory"]["system"] == (
        plan["memory"]["total"] - plan["memory"]["system"]
    )


def test_a_chat_api_that_takes_too_much_is_refused(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    given = IMAGE | {"llm_limits": {"max_queued_body_bytes": 8192 * MIB}}
    (found,) = deployment_plan(jetson, "orin", given, catalogues)["problems"]
    assert found.startswith("orin: llama-3.2-3b-instruct does not fit: with llm_context_size 4096")
    assert "system 8,896 MiB" in found


@pytest.mark.parametrize("provider", ["llamacpp", "ollama"])
def test_vision_is_known_by_the_projector(
    jetson: dict[str, Any], catalogues: dict[str, Any], provider: str
) -> None:
    given = IMAGE | {"llm_provider": provider}
    sees = given | {"llm_model": "smolvlm2-2.2b-instruct"}
    assert deployment_plan(jetson, "orin", sees, catalogues)["api"]["environment"] == {
        "CHAT_API_MAX_BODY_BYTES": str(20 * MIB),
        "CHAT_API_MAX_QUEUED_BODY_BYTES": str(128 * MIB),
    }
    assert deployment_plan(jetson, "orin", given, catalogues)["api"]["environment"] == {}


def test_vision_of_vllms_weights_is_an_ability(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    given = IMAGE | {"llm_provider": "vllm", "llm_model": "smollm2-135m"}
    assert deployment_plan(jetson, "orin", given, catalogues)["api"]["environment"] == {}
    models = {
        **catalogues["models"],
        "smollm2-135m": {**catalogues["models"]["smollm2-135m"], "abilities": ["chat", "vision"]},
    }
    sees = deployment_plan(jetson, "orin", given, {**catalogues, "models": models})
    assert "CHAT_API_MAX_BODY_BYTES" in sees["api"]["environment"]
