"""The Python that a host needs follows from ansible-core; one that is too old is named."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils import basic
from ansible.release import __version__ as CORE

from edge_fleet.host_python import minimum_python, python_problem
from filter_plugins.edge_llm import of_python

# From jetson-agx-orin.yml and jetson-nano.yml in tests/unit/edge_host/fixtures/boards, which name
# their sources.
R35 = "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64"
R32 = "# R32 (release), REVISION: 7.4, GCID: 33514132, BOARD: t210ref, EABI: aarch64"


def test_the_minimum_is_that_of_the_running_core() -> None:
    assert minimum_python(CORE) == basic._PY_MIN


@pytest.mark.parametrize(
    ("core", "minimum"),
    [("2.19.14", (3, 8)), ("2.20.0rc1", (3, 9)), ("2.20.10", (3, 9)), ("2.21.5", (3, 9))],
)
def test_the_minimum_of_a_core(core: str, minimum: tuple[int, int]) -> None:
    assert minimum_python(core) == minimum


@pytest.mark.parametrize("core", ["2.20.10", "2.21.5"])
@pytest.mark.parametrize("install", [True, False])
def test_jetpack_5_is_refused_by_name(core: str, install: bool) -> None:
    """What board_python_install would install is too old there, too."""
    assert python_problem(f"Python 3.8.10\r\n{R35}\r\n", "kitchen", core, install) == (
        "kitchen: Python on the host is too old: python3 is 3.8.10 (JetPack 5, L4T 35.4.1), and"
        f" ansible-core {core} on the control machine needs 3.9 or newer on hosts. Use ansible-core"
        " 2.19, which `scripts/venv control` installs into .venv, or set"
        " ansible_python_interpreter to a Python 3.9 or newer on the host."
    )


def test_other_hosts_are_refused_by_their_python() -> None:
    said = python_problem("Python 3.8.10\n", "old", "2.20.10")
    assert "python3 is 3.8.10, and ansible-core 2.20.10 on the control machine" in said
    assert "(JetPack 4, L4T 32.7.4)" in python_problem(f"Python 3.6.9\n{R32}", "old", "2.21.5")


def test_the_default_core_takes_jetpack_5_and_offers_a_python_to_jetpack_4() -> None:
    assert python_problem(f"Python 3.8.10\n{R35}", "kitchen", "2.19.14") == ""
    said = python_problem(f"Python 3.6.9\n{R32}", "old", "2.19.14")
    assert said.startswith(
        "old: Python on the host is too old: python3 is 3.6.9, and 3.8 or newer is needed."
    )
    assert "board_python_install: true" in said
    assert python_problem(f"Python 3.6.9\n{R32}", "old", "2.19.14", install=True) == ""


@pytest.mark.parametrize("printed", ["none\n", "Python 3.13.5\n", f"Python 3.9.2\n{R35}", ""])
def test_a_python_that_fits_is_no_problem(printed: str) -> None:
    assert python_problem(printed, "host", "2.21.5") == ""


def test_the_filter_names_a_wrong_argument() -> None:
    with pytest.raises(AnsibleFilterError, match="edge_llm_python_problem"):
        of_python(None, "host", CORE)
