"""execution-environment.yml: ansible-builder makes a build context of it that lacks nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NAME = "execution-environment.yml"
LOCK = "requirements/execution.txt"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files that the execution environment is made of."""
    (tmp_path / "requirements").mkdir()
    for name in (NAME, LOCK):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def problem(project: Path) -> str | None:
    """Why no image can be built; None: ansible-builder made a context of the build."""
    context = project / "context"
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-builder"), "create", "--file", project / NAME,
         "--context", context, "--verbosity=2"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    said = done.stdout + done.stderr
    if done.returncode:
        return f"ansible-builder create failed: {said}"
    # Of a file that is missing it says so, and succeeds.
    if missing := re.search(r"No matches for '.*'", said):
        return missing[0]
    steps = (context / "Dockerfile").read_text()
    for source in re.findall(r"^COPY (?!--from)(\S+)", steps, re.MULTILINE):
        if not (context / source).exists():
            return f"The build context lacks {source}."
    lock = context / "_build/locks" / Path(LOCK).name
    installs = re.findall(r"^RUN \$PYCMD -m pip install .*--require-hashes -r (\S+)$", steps, re.M)
    if not lock.exists() or installs != [f"/output/locks/{lock.name}"]:
        return f"The image does not install {LOCK} with its hashes."
    if lock.read_bytes() != (project / LOCK).read_bytes():
        return f"The build context has another {LOCK}."
    return None


def test_a_build_context_can_be_made(project: Path) -> None:
    assert problem(project) is None


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("version: 3", "version: 9", "Unsupported schema version: 9"),
        ("package_system:", "package_systems:", "package_systems"),
        ("additional_build_steps:", "additional_steps:", "additional_steps"),
        ("append_base:", "append_basis:", "append_basis"),
        ("src: requirements/execution.txt", "src: requirements/executio.txt", "No matches for"),
        ("COPY _build/locks/execution.txt", "COPY _build/lock/execution.txt", "lacks _build/lock/"),
        (" --require-hashes", "", "does not install requirements/execution.txt with its hashes"),
        ("dest: locks", "dest: pins", "lacks _build/locks/execution.txt"),
    ],
)
def test_a_wrong_file_is_reported(project: Path, before: str, after: str, words: str) -> None:
    text = (project / NAME).read_text()
    assert text.count(before) == 1
    (project / NAME).write_text(text.replace(before, after))
    assert re.search(words, problem(project) or "")


def test_the_image_has_what_the_control_machine_has() -> None:
    """And ansible-runner, which AWX and ansible-navigator start."""
    text = (ROOT / LOCK).read_text()
    control = (ROOT / "requirements/control.txt").read_text()
    pins = set(re.findall(r"^[\w.-]+==\S+", text, re.MULTILINE))
    assert set(re.findall(r"^[\w.-]+==\S+", control, re.MULTILINE)) < pins
    assert any(pin.startswith("ansible-runner==") for pin in pins)


def test_the_image_finds_the_packages_of_the_project() -> None:
    """Where they are is what pyproject.toml says."""
    (path,) = re.findall(r"ENV PYTHONPATH=(\S+)", (ROOT / NAME).read_text())
    where = re.search(r'^where = \["(.*)", "(.*)"\]$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert where
    assert path.split(":") == [f"/runner/project/{folder}" for folder in where.groups()]
