"""One definition for each fact: what stands in two places says the same."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def tasks(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tasks, with those in their blocks."""
    inner = [each for task in found for each in tasks(task.get("block", []))]
    return [*found, *inner]


def entry_points(role: str) -> dict[str, Any]:
    """Name of each entry point of a role -> its argument specification."""
    found: dict[str, Any] = load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]
    return found


@pytest.mark.parametrize("role", ROLES)
def test_argument_specs_are_the_defaults(role: str) -> None:
    specs = entry_points(role)
    options = {name: each for spec in specs.values() for name, each in spec["options"].items()}
    defaults = load(f"roles/{role}/defaults/main.yml")
    assert set(options) == set(defaults)
    for name, option in options.items():
        if "default" in option:
            assert option["default"] == defaults[name], name


def undefined_names(role: Path) -> set[str]:
    """The names of a role's own variables that nothing in the role sets."""
    text = "\n".join(path.read_text() for path in role.rglob("*.*") if path.is_file())
    # $__file{PATH} is Grafana's.
    return set(re.findall(r"(?<!\$)\b__[a-z]\w+", text)) - set(
        re.findall(r"(?m)^ *(__[a-z]\w+):", text)
    )


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_own_variables_are_defined(role: str) -> None:
    assert undefined_names(ROOT / "roles" / role) == set()


def test_a_variable_that_nothing_defines_is_found(tmp_path: Path) -> None:
    (tmp_path / "main.yml").write_text('__own: "{{ __other }}"\n')
    assert undefined_names(tmp_path) == {"__other"}


def uses() -> set[tuple[str, str]]:
    """Each role that a playbook or a role uses, with the entry point."""
    found = set()
    files = [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]
    for path in files:
        for play in yaml.safe_load(path.read_text()):
            found |= {(each["role"], "main") for each in play.get("roles", [])}
            for task in tasks([*play.get("pre_tasks", []), *play.get("tasks", []), play]):
                for way in ("import_role", "include_role"):
                    if used := task.get(f"ansible.builtin.{way}"):
                        found.add((used["name"], used.get("tasks_from", "main")))
    return found


def test_every_entry_point_that_is_used_has_an_argument_spec() -> None:
    """Ansible validates arguments where tasks_from is the name of the specification."""
    used = uses()
    assert ("weights", "check_source") in used
    assert used == {(role, name) for role in ROLES for name in entry_points(role)}


def undefined(role: Path) -> set[str]:
    """Private variables (__ROLE_NAME) that a role's tasks use, and that nothing in it defines."""
    text = "\n".join(path.read_text() for path in role.rglob("*.yml"))
    used = set(re.findall(rf"\b__{role.name}_\w+", text))
    return used - set(re.findall(r"(?m)^ *(?:register: )?(__\w+)(?::|$)", text))


@pytest.mark.parametrize("role", ROLES)
def test_private_variables_of_a_role_are_defined(role: str) -> None:
    assert undefined(ROOT / "roles" / role) == set()


def test_a_private_variable_that_is_not_defined_is_found(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack/tasks.yml").write_text(
        "- stat:\n  loop: '{{ __stack_gone }}'\n  when: __stack_here\n  register: __stack_found\n"
        "- debug: {var: __stack_found}\n  vars:\n    __stack_here: true\n"
    )
    assert undefined(tmp_path / "stack") == {"__stack_gone"}


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_of_a_role_names_its_entry_points(role: str) -> None:
    text = (ROOT / f"roles/{role}/README.md").read_text()
    assert text.startswith(f"# {role}\n")
    assert "\nTags: " in text
    for name in entry_points(role):
        assert f"\n| `{name}` |" in text, name


def test_the_readme_has_every_make_target() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    for target in targets:
        assert f"make {target}" in readme, target


@pytest.mark.parametrize("name", sorted(load("models.yml")["models"]))
def test_models_are_locked_wholly_or_not_at_all(name: str) -> None:
    model = load("models.yml")["models"][name]
    for kind in {"gguf", "hf"} & set(model):
        files = model[kind]["files"]
        lock = [value for file in files for value in (file["size"], file["sha256"])]
        assert all(lock) or not any(lock)
        if all(lock):
            assert model[kind]["revision"]
            assert all(re.fullmatch(r"[0-9a-f]{64}", file["sha256"]) for file in files)
        assert [file.get("part") for file in files] in ([None] * len(files), [None, "projector"])


def test_images_are_pinned_by_digest_or_left_open() -> None:
    engines = load("engines.yml")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", engines["api"]["digest"])
    for engine in engines["engines"].values():
        for row in engine["images"]:
            digest = row["digest"]
            assert digest is None or re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
            assert not row["image"].endswith(":latest")


def test_links_in_the_repository_lead_to_its_own_files() -> None:
    """A link to a machine's folder, such as a shared .venv, is broken in every clone, and takes the
    place of the folder of that name."""
    listed = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    links = [line.partition("\t")[2] for line in listed.stdout.splitlines() if line[:3] == "120"]
    assert links
    outside = [name for name in links if not (ROOT / name).resolve().is_relative_to(ROOT.resolve())]
    assert outside == []


@pytest.mark.parametrize("locks", [("api", "control", "dev"), ("api", "clients")], ids="-".join)
def test_locks_agree(locks: tuple[str, ...]) -> None:
    """A package has the same pins in every lock that has it."""
    pins: dict[str, set[str]] = {}
    for lock in locks:
        found: dict[str, set[str]] = {}
        for line in (ROOT / f"requirements/{lock}.txt").read_text().splitlines():
            if match := re.match(r"([a-z0-9._-]+)==(\S+)", line):
                found.setdefault(match[1], set()).add(match[2])
        for package, versions in found.items():
            assert pins.setdefault(package, versions) == versions, package


def test_the_example_says_which_images_are_locked() -> None:
    """The comment beside llm_image follows the digests of engines.yml."""
    rows = [row for engine in load("engines.yml")["engines"].values() for row in engine["images"]]
    jetson = [row["digest"] for row in rows if row.get("kind") == "jetson"]
    text = (ROOT / "inventories/example/group_vars/jetsons.yml").read_text()
    assert jetson
    assert ("names an image by digest for every" in text) == all(jetson)
    assert ("No digest" in text) == (not any(jetson))


def test_the_image_document_names_packages_of_the_lock() -> None:
    """What the chat API is said to be made of stands in its lock."""
    text = (ROOT / "docs/chat-api-image.md").read_text()
    sentence = text[text.index("The chat API is Python") :].partition(".")[0]
    named = {
        name.strip().lower() for each in re.findall(r"\((.*?)\)", sentence, re.DOTALL)
        for name in each.split(",")
    }  # fmt: skip
    lock = (ROOT / "requirements/api.txt").read_text()
    assert "fastapi" in named
    assert named - set(re.findall(r"^([a-z0-9._-]+)==", lock, re.MULTILINE)) == set()


@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/tasks/*.yml")), ids=str)
def test_tasks_of_the_control_machine_never_ask_for_sudo_there(path: Path) -> None:
    """A group's ansible_become outranks the keyword, so it must be a variable of the task."""
    for task in tasks(yaml.safe_load(path.read_text())):
        if "delegate_to" in task:
            assert task["vars"]["ansible_become"] is False, task["name"]
            assert "ansible_playbook_python" in task["vars"]["ansible_python_interpreter"]
