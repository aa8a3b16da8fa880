"""The schema of the inventory variables: accepted values, defaults and messages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from edge_fleet.setting_types import plain
from edge_fleet.settings import PREFIXES, VARIABLES, Settings, advice_of, check_settings
from tests.unit.edge_fleet.conftest import OWN_IMAGE, ROOT

SECRETS = ("llm_api_key", "llm_api_keys", "llm_models_token", "llm_models_proxy")


def problem(name: str, value: object) -> str:
    settings, problems = check_settings({name: value})
    assert settings == Settings(), "an invalid variable has its default"
    (found,) = problems
    return found


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("llm_provider", "lamacpp", "'lamacpp'. Did you mean llamacpp? Use auto, llamacpp, ollama"),
        ("llm_cache_type", "q4_1", "'q4_1'. Did you mean q4_0? Use f16, q8_0 or q4_0."),
        ("llm_context_size", 0, "0. Use a whole number from 256 up."),
        ("llm_context_size", "many", "'many'. Use a whole number from 256 up."),
        ("llm_parallel", True, "True. Use a whole number from 1 to 64."),
        ("llm_parallel", 65, "65. Use a whole number from 1 to 64."),
        ("llm_parallel", "65", "'65'. Use a whole number from 1 to 64."),
        ("llm_parallel", 2.0, "2.0. Use a whole number from 1 to 64."),
        ("llm_gpu_required", "maybe", "'maybe'. Use true or false."),
        ("llm_gpu_required", 2, "2. Use true or false."),
        ("llm_flash_attention", "maybe", "'maybe'. Use auto, on or off."),
        ("llm_model", 7, "7. Use text."),
        ("llm_image", [OWN_IMAGE], f"['{OWN_IMAGE}']. Use an image (name@sha256:...) or a mapping"),
        ("llm_image", {}, "{}. Use an image (name@sha256:...) or a mapping of provider to image."),
        ("llm_image", {"ollama": ""}, "{'ollama': ''}. Use an image (name@sha256:...) or a"),
        ("llm_api_base_image", "alpine:3", "'alpine:3'. Use an image with its digest (name@sha256"),
        ("llm_registry_image", "registry:3", "'registry:3'. Use an image with its digest"),
        ("llm_rollout", 1, "1. Use a list of whole numbers from 1 up and of shares such as 25%."),
        (
            "llm_suite",
            "chat",
            "'chat'. Use a list of names of test suites, such as chat and tools.",
        ),
        ("llm_suite", ["../chat"], "['../chat']. Use a list of names of test suites"),
        ("llm_rollout", [0], "[0]. Use a list of whole numbers"),
        ("llm_rollout", [True], "[True]. Use a list of whole numbers"),
        ("llm_rollout", ["101%"], "['101%']. Use a list of whole numbers"),
        ("llm_rollout", [], "[]. Use a list of whole numbers"),
        ("llm_benchmark_gate", 0, "0. Use a number such as 0.8, above 0 and up to 1."),
        ("llm_benchmark_gate", 80, "80. Use a number such as 0.8, above 0 and up to 1."),
        ("llm_benchmark_gate", "80%", "'80%'. Use a number such as 0.8,"),
        ("llm_model_aliases", "gpt-4o", "'gpt-4o'. Use a list of names, each of letters, digits"),
        ("llm_model_aliases", ["two words"], "['two words']. Use a list of names"),
        ("llm_model_aliases", ["a,b"], "['a,b']. Use a list of names"),
        ("llm_model_aliases", [""], "['']. Use a list of names"),
        ("llm_model_aliases", ["${HOME}"], "['${HOME}']. Use a list of names"),
        ("llm_model_aliases", [1], "[1]. Use a list of names"),
        ("llm_tls", "maybe", "'maybe'. Use true or false."),
        ("llm_tls_days", 826, "826. Use a whole number from 1 to 825."),
        (
            "llm_tls_names",
            "pi",
            "'pi'. Use a list of host names (kitchen.local, *.example.org) and",
        ),
        ("llm_tls_names", ["fe80::1%eth0"], "['fe80::1%eth0']. Use a list of host names"),
        ("llm_tls_names", ["http://pi"], "['http://pi']. Use a list of host names"),
        ("llm_tls_certificate", 7, "7. Use a path."),
        ("board_root", "opt", "'opt'. Use an absolute path."),
        ("board_reboot", "maybe", "'maybe'. Use true or false."),
        ("board_clocks", "maybe", "'maybe'. Use true or false."),
        ("board_zram", "maybe", "'maybe'. Use true or false."),
        ("board_fan", "loud", "'loud'. Use quiet or cool."),
        ("board_power_mode", 0, "0. Use the name of a power mode, such as MAXN."),
        ("board_reboot_timeout", 0, "0. Use a whole number from 1 up."),
        ("board_docker_options", [1], "[1]. Use a mapping of option to value."),
    ],
)
def test_an_invalid_value_is_named_with_what_to_use(name: str, value: object, message: str) -> None:
    assert problem(name, value).startswith(f"{name} is invalid: {message}")
    assert problem(name, value).endswith(".")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("llm_modle", " Did you mean llm_model?"),
        ("board_rebot", " Did you mean board_reboot?"),
        ("llm_zzzzzzzzzzzzzz", ""),
    ],
)
def test_an_unknown_name_is_a_problem_for_both_prefixes(name: str, hint: str) -> None:
    for value in ("x", None, ""):
        assert problem(name, value) == (
            f"{name} is invalid: the project has no variable of this name.{hint}"
            " docs/variables.md lists all variables."
        )


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("board_restart_docker", "No fix restarts Docker any more. Remove the variable."),
        (
            "llm_remote_images",
            "An engine has no network from which it could fetch an image. Remove the variable, and"
            " send images within the request, as data: URLs.",
        ),
    ],
)
def test_a_removed_variable_is_named_with_what_to_do(name: str, advice: str) -> None:
    for value in (True, False, None):
        assert problem(name, value) == (
            f"{name} is invalid: the project has this variable no longer. {advice}"
        )


def test_all_problems_are_reported_at_once() -> None:
    given = {"llm_modle": "x", "llm_parallel": 0, "board_fan": 1, "llm_context_size": 512}
    settings, problems = check_settings(given)
    assert [each.partition(" ")[0] for each in problems] == [
        "llm_modle", "board_fan", "llm_parallel"
    ]  # fmt: skip
    assert settings.llm_context_size == 512, "what is valid counts"


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("llm_context_size", "2048", 2048),
        ("llm_models_keep", " 0 ", 0),
        ("llm_gpu_required", "yes", True),
        ("llm_models_rehash", "True", True),
        ("board_reboot", "1", True),
        ("board_zram", "off", False),
        ("board_reboot_timeout", "60", 60),
        ("llm_flash_attention", True, "on"),
        ("llm_flash_attention", False, "off"),
        ("llm_rollout", [1, "25%", "3"], [1, "25%", "3"]),
        ("llm_benchmark_gate", "0.8", 0.8),
        ("llm_benchmark_gate", 1, 1.0),
        ("llm_image", {"ollama": OWN_IMAGE}, {"ollama": OWN_IMAGE}),
    ],
)
def test_text_of_an_ini_inventory_is_read(name: str, value: object, read: object) -> None:
    settings, problems = check_settings({name: value})
    assert problems == []
    assert getattr(settings, name) == read


@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_value_means_the_default(empty: object) -> None:
    assert check_settings(dict.fromkeys(VARIABLES, empty)) == (Settings(), [])


# Sources and proxies


@pytest.mark.parametrize("name", ["llm_models_mirror", "llm_models_proxy"])
@pytest.mark.parametrize(
    "value",
    [
        "https://huggingface.co",
        "http://hub.lan:8080/models",
        "https://hub.lan/",
        "https://[2001:db8::1]:8443/x",
    ],
)
def test_sources(name: str, value: str) -> None:
    settings, problems = check_settings({name: value})
    assert (getattr(settings, name), problems) == (value, [])


@pytest.mark.parametrize("value", ["/media/usb", "/media/usb/", "/a folder/of mine", "/x"])
def test_a_mirror_may_be_a_folder(value: str) -> None:
    settings, problems = check_settings({"llm_models_mirror": value})
    assert (settings.llm_models_mirror, problems) == (value, [])


@pytest.mark.parametrize(
    "value",
    [
        *("huggingface.co", "hub.lan:8080", "ftp://hub.lan", "file:///media/usb", "media/usb"),
        *("https://", "https://a b", "https://hub.lan\n", "/", "/ x", "~/models", "./models"),
        *("https://alice@hub.lan", "https://alice:pw@hub.lan", 7, True, ["https://hub.lan"]),
    ],
)
def test_what_is_no_source(value: object) -> None:
    # A password is not shown.
    found = "the address has a user" if "@" in str(value) else repr(value)
    assert problem("llm_models_mirror", value) == (
        f"llm_models_mirror is invalid: {found}. Use an address without user and password"
        " (https://HOST/PATH) or a folder of the control machine (/PATH)."
    )


def test_a_proxy_may_have_a_user() -> None:
    value = "http://alice:pw@proxy.lan:3128"
    assert check_settings({"llm_models_proxy": value})[0].llm_models_proxy == value


@pytest.mark.parametrize("value", ["/media/usb", "proxy:3128", "socks5://alice:pw@proxy", 7])
def test_what_is_no_proxy(value: object) -> None:
    assert problem("llm_models_proxy", value) == (
        "llm_models_proxy is invalid: the value is not shown. Use http://[USER:PASSWORD@]HOST:PORT."
    )


# Secrets


@pytest.mark.parametrize(
    "key", ["hunter2", "two words are long enough", "#starts-with-a-hash", "a$(touch /tmp/x)bcdefg"]
)
@pytest.mark.parametrize("name", SECRETS)
def test_an_invalid_secret_is_not_shown(name: str, key: str) -> None:
    for value in (key, [key], {key: key}, [[key * 2]]):
        found = problem(name, value)
        assert found.startswith(f"{name} is invalid: the value is not shown. Use ")
        assert key not in found


def test_secrets_are_no_part_of_a_representation() -> None:
    key = "a-key-that-is-long-enough"
    given = {"llm_api_key": key, "llm_api_keys": [key], "llm_models_token": key}
    settings, problems = check_settings(given | {"llm_models_proxy": f"http://u:{key}@proxy"})
    assert problems == []
    assert key not in repr(settings)


# The schema itself


def test_every_variable_is_described_and_its_example_is_valid() -> None:
    for name, field in VARIABLES.items():
        assert name.startswith(PREFIXES)
        assert field.description
        assert advice_of(name).text
        (example,) = field.examples or []
        if "{{" not in str(example) and "..." not in str(example):
            assert check_settings({name: example})[1] == [], name
        assert example != field.default, name
        if field.default is None:
            assert isinstance(field.json_schema_extra, dict)
            assert field.json_schema_extra["default_text"], name


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().llm_model = "other"


_READS = re.compile(r"\{\{ (\w+) \| default\((.+), true\)(?: \| bool)? \}\}")


def specs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Role, inventory variable and option of each option of a role whose default reads a variable
    and nothing else. The default of the variable is the option's, where it is a literal.
    """
    for path in sorted(ROOT.glob("roles/*/defaults/main.yml")):
        text = (path.parents[1] / "meta/argument_specs.yml").read_text()
        options: dict[str, Any] = {}
        for entry in yaml.safe_load(text)["argument_specs"].values():
            options |= entry["options"]
        for name, value in yaml.safe_load(path.read_text()).items():
            if (reads := _READS.fullmatch(str(value))) and reads[1].startswith(PREFIXES):
                default = yaml.safe_load(reads[2])
                literal = default != "" and (
                    not isinstance(default, str) or reads[2].startswith("'")
                )
                yield (
                    path.parents[1].name,
                    reads[1],
                    options[name] | ({"default": default} if literal else {}),
                )


KINDS = {
    "str": "Use ", "path": "Use ", "int": "Use a whole number", "bool": "Use true or false",
    "dict": "Use a mapping", "list": "Use a list",
}  # fmt: skip


def mismatch(name: str, option: Mapping[str, Any]) -> str:
    """How an option of a role differs from the schema; empty if it does not."""
    if name not in VARIABLES:
        return "the schema has no such variable"
    kind = option.get("type", "str")
    if not advice_of(name).text.startswith(KINDS[kind]):
        return f"its type is {kind}, and the schema says: {advice_of(name).text}"
    if "default" in option and option["default"] != VARIABLES[name].default:
        return f"its default is {option['default']!r}"
    return ""


def test_argument_specs_agree_with_the_schema() -> None:
    names = {name for _, name, _ in specs()}
    assert {"board_root", "board_reboot_timeout", "board_python_install"} <= names
    for role, name, option in specs():
        assert mismatch(name, option) == "", f"{role}: {name}"


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("board_reboot_timeout", {"type": "str"}),
        ("board_reboot_timeout", {"type": "bool"}),
        ("board_reboot_timeout", {"type": "int", "default": 901}),
        ("board_root", {"type": "path", "default": "/opt"}),
        ("board_rebot", {"type": "bool"}),
    ],
)
def test_another_argument_spec_is_found(name: str, option: dict[str, Any]) -> None:
    if option["type"] == "str":  # every value is text in Ansible
        option = {**option, "default": "900"}
    assert mismatch(name, option)


def test_roles_and_playbooks_name_variables_of_the_schema() -> None:
    files = [*ROOT.glob("roles/*/*/*.yml"), *ROOT.glob("playbooks/**/*.yml")]
    text = "".join(path.read_text() for path in files)
    found = set(re.findall(r"\b(?:llm|board)_[a-z_]+\b", text))
    assert "llm_images_cache" in found
    assert found <= set(VARIABLES)


class LazyDict(dict[str, Any]):
    """Like Ansible's containers, which template their values when they are read."""

    def items(self) -> Any:
        return [(Tagged(name), value.upper()) for name, value in super().items()]


class Tagged(str):
    """Like Ansible's text, which carries where it comes from."""


def test_ansibles_containers_are_converted() -> None:
    found = plain({"a": LazyDict(b="x"), "c": (1, [True, None, 1.5, Tagged("y")])})
    assert found == {"a": {"b": "X"}, "c": [1, [True, None, 1.5, "y"]]}
    assert type(found["a"]) is dict
    assert type(found["c"][1][3]) is str
    assert found["c"][1][0] is True
