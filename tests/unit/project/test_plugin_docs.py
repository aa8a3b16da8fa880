"""What ansible-doc shows of the project's plugins, and whether it is so."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from action_plugins import chat_api_bundle, client_benchmark, control_files, host_program
from filter_plugins.edge_llm import FilterModule
from tests.unit.plugin_docs import PROJECT, differences, missing, section

MODULES = sorted(path.stem for path in PROJECT.glob("library/*.py"))
ACTIONS = sorted(path.stem for path in PROJECT.glob("action_plugins/*.py"))
FILTERS = sorted(FilterModule().filters())
CALLBACKS = sorted(path.stem for path in PROJECT.glob("callback_plugins/*.py"))
NAMES = {"module": sorted({*MODULES, *ACTIONS}), "filter": FILTERS, "callback": CALLBACKS}
# Actions that run on the control machine alone: their files in library/ are documentation.
SPECS: dict[str, dict[str, Any]] = {
    "chat_api_bundle": chat_api_bundle.OPTIONS,
    "client_benchmark": client_benchmark.OPTIONS,
    "control_files": control_files.OPTIONS,
    "host_program": host_program.OPTIONS,
}


@cache
def output(kind: str) -> subprocess.CompletedProcess[str]:
    """The output of ansible-doc for all plugins of a kind."""
    return subprocess.run(
        [
            Path(sys.executable).with_name("ansible-doc"), "--json", f"--type={kind}", *NAMES[kind]
        ],
        cwd=PROJECT, capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
    )  # fmt: skip


def shown(kind: str) -> dict[str, Any]:
    """What ansible-doc shows of all plugins of a kind, by their names."""
    done = output(kind)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names]
)
def test_ansible_doc_shows_it(kind: str, name: str) -> None:
    docs = shown(kind)[name]
    assert docs["doc"]["short_description"]
    assert docs["doc"]["description"]
    assert docs["doc"]["author"]
    assert docs["examples"].strip()
    if kind != "callback":
        assert docs["return"]
    for option, entry in docs["doc"].get("options", {}).items():
        assert entry["description"] and entry["type"], option


@pytest.mark.parametrize("name", NAMES["module"])
def test_an_example_is_a_task_with_known_options(name: str) -> None:
    docs = shown("module")[name]
    tasks = yaml.safe_load(docs["examples"])
    assert tasks
    options = docs["doc"]["options"]
    for task in tasks:
        assert set(task[name]) <= set(options)
        assert {key for key, each in options.items() if each.get("required")} <= set(task[name])


@pytest.mark.parametrize("name", FILTERS)
def test_an_example_uses_the_filter(name: str) -> None:
    assert f"| {name}" in shown("filter")[name]["examples"]
    yaml.safe_load(shown("filter")[name]["examples"])


@pytest.mark.parametrize("name", FILTERS)
def test_the_options_of_a_filter_are_its_parameters(name: str) -> None:
    _, *parameters = inspect.signature(FilterModule().filters()[name]).parameters.values()
    docs = shown("filter")[name]["doc"]
    options = {key: each for key, each in docs["options"].items() if key != "_input"}
    assert docs["options"]["_input"]["required"] is True
    assert sorted(options) == sorted(each.name for each in parameters)
    assert docs.get("positional", "") == ", ".join(each.name for each in parameters)
    for each in parameters:
        needed = each.default is inspect.Parameter.empty
        assert options[each.name].get("required", False) is needed
        if not needed:
            assert options[each.name].get("default") == each.default


def test_no_filter_is_documented_that_does_not_exist() -> None:
    assert sorted(path.stem for path in PROJECT.glob("filter_plugins/*.yml")) == FILTERS


def plain(node: ast.expr) -> Any:
    """The value of an expression; dictionaries without the values that are no literals."""
    if isinstance(node, ast.Dict):
        pairs = (
            (plain(key), plain(value))
            for key, value in zip(node.keys, node.values, strict=True)
            if key
        )
        return {key: value for key, value in pairs if value is not NotImplemented}
    try:
        return ast.literal_eval(node)
    except ValueError:
        return NotImplemented


def specification(name: str) -> dict[str, Any]:
    """The argument specification of a module, as far as its file has it in literals."""
    if name in SPECS:
        return SPECS[name]
    for node in ast.walk(ast.parse((PROJECT / f"library/{name}.py").read_text())):
        if isinstance(node, ast.keyword) and node.arg == "argument_spec":
            found = plain(node.value)
            assert isinstance(found, dict)
            return found
    raise AssertionError(f"library/{name}.py has no argument_spec")


@pytest.mark.parametrize("name", NAMES["module"])
def test_the_options_of_a_module_are_its_arguments(name: str) -> None:
    options = section(PROJECT / f"library/{name}.py", "DOCUMENTATION")["options"]
    arguments = specification(name)
    assert sorted(options) == sorted(arguments)
    for key, argument in arguments.items():
        given = {each: argument[each] for each in argument if each not in ("no_log", "options")}
        documented = {each: options[key][each] for each in options[key] if each in given}
        assert documented == given, key


# The comparison of results with RETURN: tests/unit/edge_host/test_results.py uses it.


def test_a_result_with_what_is_not_documented() -> None:
    good = {"changed": True, "written": ["a"], "changes": ["a: a new file"]}
    assert differences("control_files", good) == []
    assert missing("control_files", [good]) == []
    assert differences("control_files", {**good, "more": 1}) == [
        "control_files.more is not documented"
    ]
    assert differences("control_files", {**good, "written": None}) == [
        "control_files.written is null, and its description does not say so"
    ]
    assert differences("control_files", {**good, "written": "a"}) == [
        "control_files.written is 'a', and documented as list"
    ]
    assert differences("control_files", {**good, "written": [1]}) == [
        "control_files.written has 1, and elements str"
    ]
    assert missing("control_files", [{"written": []}]) == ["control_files.changes"]


def test_a_result_within_another() -> None:
    state = {"board": {"os": {"id": 7}, "cpus": True, "new": 1}, "ports": {"8000": {"pid": 1}}}
    assert differences("host_info", {"state": state}) == [
        "host_info.state.board.os.id is 7, and documented as str",
        "host_info.state.board.cpus is True, and documented as int",
        "host_info.state.board.new is not documented",
        "host_info.state.ports.8000.pid is not documented",
    ]
    assert "host_info.state.ports.PORT.process" in missing("host_info", [{"state": state}])
    assert "host_info.state.ports.PORT" not in missing("host_info", [{"state": state}])
