"""scripts/venv: virtual environments from locks, with a Python that fits each."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Stands for Python and for the one of the environment it makes: keeps the lock that pip is given.
PYTHON = """#!/bin/bash
case "$*" in
    *"-m venv"*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
    *--require-hashes*) cat "${@: -1}" > "$LOCK_SEEN" ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / "project" / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "project")
    (tmp_path / "project/python").write_text(PYTHON)
    (tmp_path / "project/python").chmod(0o755)
    return tmp_path / "project"


def venv(project: Path, lock: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/venv where no Python can be found but those of the system's own folders."""
    return subprocess.run(
        ["scripts/venv", lock], cwd=project, capture_output=True, text=True, check=False,
        env={
            **{name: text for name, text in os.environ.items() if not name.startswith("PYTHON")},
            "PATH": f"{project}/bin:/usr/bin:/bin", "PYENV_ROOT": str(project / "pyenv"),
            "LOCK_SEEN": str(project / "seen"), **environment,
        },
    )  # fmt: skip


def pins(text: str) -> dict[str, str]:
    """Package -> its pin and hashes."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        name = line.split("=")[0].split()[0] if line[:1].isalpha() else name
        found[name] = found.get(name, "") + line + "\n"
    return found


@pytest.mark.parametrize("core", ["2.20", "2.21"])
def test_an_ansible_core_takes_the_place_of_the_default_one(project: Path, core: str) -> None:
    named = {"PYTHON312": f"{project}/python", "PYTHON313": f"{project}/python"}
    done = venv(project, f"core-{core}", **named)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = pins((project / "seen").read_text())
    dev = pins((project / "requirements/dev.txt").read_text())
    own = pins((project / f"requirements/core-{core}.txt").read_text())
    assert own["ansible-core"].startswith(f"ansible-core=={core}.")
    assert set(own) == {"ansible", "ansible-core"}
    assert seen == dev | own
    assert (project / f".venv-core-{core}/bin/python").exists()
    assert not (project / ".venv").exists()
    # Up to date: nothing is installed again.
    (project / "seen").unlink()
    assert venv(project, f"core-{core}", **named).returncode == 0
    assert not (project / "seen").exists()


def test_the_default_environment_is_the_lock(project: Path) -> None:
    done = venv(project, "dev", PYTHON=f"{project}/python")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / "seen").read_text() == (project / "requirements/dev.txt").read_text()
    assert (project / ".venv/bin/python").exists()


def test_a_python_of_pyenv_is_found(project: Path) -> None:
    """Also where pyenv has a command of that name on PATH that runs none."""
    found = project / "pyenv/versions/3.12.1/bin/python"
    found.parent.mkdir(parents=True)
    shutil.copy(project / "python", found)
    shim = project / "bin/python3.12"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    done = venv(project, "core-2.20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / ".venv-core-2.20/bin/python").read_text() == PYTHON


def test_a_missing_python_is_named(project: Path) -> None:
    (project / "bin").mkdir()
    for name in ("python3.12", "python3.13"):
        (project / "bin" / name).write_text("#!/bin/sh\nexit 127\n")
        (project / "bin" / name).chmod(0o755)
    # The broken one is found first on PATH, so that one of the system is not.
    done = venv(project, "core-2.21")
    assert done.returncode == 1
    assert done.stderr == (
        "Python 3.13 is missing: it was looked for as python3.13 and in pyenv. Install it, or"
        " set PYTHON313=... to its path.\n"
    )
    assert not (project / ".venv-core-2.21").exists()


@pytest.mark.parametrize("name", ["clients", "bench"])
def test_programs_of_others_have_an_environment_of_their_own(project: Path, name: str) -> None:
    done = venv(project, name, PYTHON=f"{project}/python")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / f".venv-{name}/bin/python").read_text() == PYTHON
    assert not (project / ".venv").exists()
    lock = pins((project / f"requirements/{name}.txt").read_text())
    assert pins((project / "seen").read_text()) == lock


def test_clients_are_tested_with_the_chat_api_s_own_pins() -> None:
    lock = pins((ROOT / "requirements/clients.txt").read_text())
    for name, pin in pins((ROOT / "requirements/api.txt").read_text()).items():
        if name:
            assert lock[name].splitlines()[0] == pin.splitlines()[0]


def test_an_unknown_lock_is_named(project: Path) -> None:
    done = venv(project, "core-2.18")
    assert done.returncode == 1
    assert "The lock core-2.18 is unknown" in done.stderr
