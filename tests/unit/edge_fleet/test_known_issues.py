"""Known issues of boards: each is fixed where that is allowed, and reported where it is not."""

from __future__ import annotations

from typing import Any

import pytest

from edge_fleet.known_issues import diagnose
from edge_fleet.settings import Settings
from tests.unit.edge_fleet.conftest import Change

MIB = 1024**2
CMDLINE = "/boot/firmware/cmdline.txt"
OFF, ON = "cgroup_disable=memory", "cgroup_enable=memory"

Found = dict[str, Any]


def found_on(state: dict[str, Any], **options: Any) -> Found:
    """The known issues of a host with these board_* variables."""
    settings = Settings.model_validate({f"board_{name}": each for name, each in options.items()})
    issues = diagnose(state, settings)
    return {
        "problems": list(issues.problems),
        "notices": list(issues.notices),
        "fixes": dict(issues.fixes),
        "reboot": list(issues.reboot),
        "may_reboot": issues.may_reboot,
    }


def nothing(found: Found) -> bool:
    return not (found["problems"] or found["fixes"] or found["reboot"] or found["notices"])


def test_a_board_without_known_issues(jetson: dict[str, Any], pi: dict[str, Any]) -> None:
    assert nothing(found_on(jetson))
    assert nothing(found_on(pi))
    assert found_on(pi)["may_reboot"] is False


# A Raspberry Pi's memory cgroup


@pytest.fixture
def unlimited(pi: dict[str, Any], changed: Change) -> dict[str, Any]:
    """A Pi as Raspberry Pi OS makes it: the firmware turns the memory cgroup off."""
    state = changed(pi, "board.kernel.memory_cgroup", False)
    state["board"]["boot"] |= {"file_words": [], "words": [OFF]}
    return state


def test_memory_cgroup_is_fixed_and_the_board_restarted(unlimited: dict[str, Any]) -> None:
    found = found_on(unlimited, reboot=True)
    assert found == {
        "problems": [],
        "notices": [],
        "fixes": {"memory_cgroup": CMDLINE},
        "reboot": ["the kernel's memory cgroup"],
        "may_reboot": True,
    }


def test_memory_cgroup_is_named_where_no_reboot_is_allowed(unlimited: dict[str, Any]) -> None:
    found = found_on(unlimited)
    assert found["fixes"] == {"memory_cgroup": CMDLINE}
    assert found["notices"] == [
        "containers' memory is limited after the next start only. Set board_reboot: true to allow a"
        " reboot."
    ]
    assert found["may_reboot"] is False


@pytest.mark.parametrize(
    ("words", "fixed"),
    [
        # The last word counts.
        ([OFF], True),
        ([ON, OFF], True),
        ([OFF, ON], False),
        ([ON], False),
        (["cgroup_enable=cpuset", "cgroup_memory=1"], True),
    ],
)
def test_what_the_file_says_already(
    unlimited: dict[str, Any], changed: Change, words: list[str], fixed: bool
) -> None:
    found = found_on(changed(unlimited, "board.boot.file_words", words), reboot=True)
    assert ("memory_cgroup" in found["fixes"]) is fixed
    # Written and not started with yet: the reboot is what is left.
    assert found["reboot"] == ["the kernel's memory cgroup"]


def test_a_kernel_that_does_not_hear_the_word_is_not_rebooted_for_ever(
    unlimited: dict[str, Any],
) -> None:
    unlimited["board"]["boot"] |= {"file_words": [ON], "words": [OFF, ON]}
    found = found_on(unlimited, reboot=True)
    assert not found["fixes"]
    assert not found["reboot"]
    assert found["notices"] == [
        "the kernel's memory cgroup is off although its command line has cgroup_enable=memory: the"
        " kernel cannot limit containers' memory."
    ]


@pytest.mark.parametrize("lines", [0, 2])
def test_a_command_line_that_is_not_one_line_is_not_touched(
    unlimited: dict[str, Any], changed: Change, lines: int
) -> None:
    found = found_on(changed(unlimited, "board.boot.lines", lines), reboot=True)
    assert found["problems"] == [
        f"{CMDLINE} is invalid: it has {lines} lines, and the firmware reads one. Join them in one"
        " line."
    ]
    assert not found["fixes"]


def test_a_pi_without_a_command_line_is_found_on(
    unlimited: dict[str, Any], changed: Change
) -> None:
    found = found_on(changed(unlimited, "board.boot.file", None), reboot=True)
    assert not found["fixes"]
    assert not found["reboot"]
    assert found["notices"] == [
        "the kernel's memory cgroup is off, so containers' memory has no limit, and no"
        " cmdline.txt was found. Add cgroup_enable=memory to the kernel's command line."
    ]


@pytest.mark.parametrize("value", [True, None])
def test_a_memory_cgroup_that_is_on_or_not_known(
    unlimited: dict[str, Any], changed: Change, value: bool | None
) -> None:
    assert nothing(found_on(changed(unlimited, "board.kernel.memory_cgroup", value), reboot=True))


# Power, clocks, fan, swap


def test_the_power_mode_by_its_name(jetson: dict[str, Any]) -> None:
    assert found_on(jetson, power_mode="25W")["fixes"] == {"power_mode": {"name": "25W", "id": 2}}
    assert nothing(found_on(jetson, power_mode="MAXN"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("25w", "board_power_mode is invalid: '25w'. Did you mean 25W? Use 15W, 25W or MAXN."),
        ("0", "board_power_mode is invalid: '0'. Use 15W, 25W or MAXN."),
    ],
)
def test_a_power_mode_that_the_board_does_not_have(
    jetson: dict[str, Any], asked: object, said: str
) -> None:
    assert found_on(jetson, power_mode=asked)["problems"] == [f"{said}"]


def test_a_board_without_power_modes(pi: dict[str, Any]) -> None:
    assert found_on(pi, power_mode="MAXN")["problems"] == [
        "board_power_mode does not fit: the host has no nvpmodel. Remove the variable."
    ]


@pytest.mark.parametrize("there", [True, False])
def test_clocks(jetson: dict[str, Any], changed: Change, there: bool) -> None:
    state = changed(jetson, "board.tuning.clocks", there)
    state["board"]["tuning"]["clocks_unit"] = there
    assert nothing(found_on(state))
    assert nothing(found_on(state, clocks=there))
    assert found_on(state, clocks=not there)["fixes"] == {"clocks": not there}


def test_clocks_of_an_earlier_version(jetson: dict[str, Any], changed: Change) -> None:
    """The unit is brought up to date, also where the variable has been removed since."""
    state = changed(jetson, "board.tuning.clocks", True)
    assert found_on(state)["fixes"] == {"clocks": True}
    assert found_on(state, clocks=True)["fixes"] == {"clocks": True}
    assert found_on(state, clocks=False)["fixes"] == {"clocks": False}
    # Facts of an earlier version do not say.
    del state["board"]["tuning"]["clocks_unit"]
    assert nothing(found_on(state, clocks=True))


def test_the_fan(jetson: dict[str, Any], changed: Change) -> None:
    assert nothing(found_on(jetson, fan="quiet"))
    assert found_on(jetson, fan="cool")["fixes"] == {"fan": "cool"}
    fanless = changed(jetson, "board.tuning.fan", None)
    assert found_on(fanless, fan="cool")["problems"] == [
        "board_fan does not fit: the host has no nvfancontrol with a profile. Remove the variable."
    ]


def test_compressed_swap(jetson: dict[str, Any], pi: dict[str, Any], changed: Change) -> None:
    state = changed(jetson, "board.zram_total", 3800 * MIB)
    assert found_on(state, zram=False)["fixes"] == {"zram": False}
    assert nothing(found_on(state, zram=True))
    found = found_on(state)
    assert not found["fixes"]
    assert found["notices"] == [
        "3,800 MiB of swap are compressed memory (zram), which the GPU cannot use. board_zram:"
        " false turns it off."
    ]
    assert nothing(found_on(jetson, zram=False)), "there is none"
    # A Pi's processor can use it.
    assert nothing(found_on(changed(pi, "board.zram_total", 3800 * MIB)))


@pytest.mark.parametrize(("name", "value"), [("clocks", True), ("fan", "cool"), ("zram", False)])
def test_what_is_for_jetsons(pi: dict[str, Any], name: str, value: object) -> None:
    assert found_on(pi, **{name: value})["problems"] == [
        f"board_{name} does not fit: the host is no Jetson. Remove the variable."
    ]


# What is named, and left to people


@pytest.mark.parametrize(
    ("path", "value", "notice"),
    [
        (
            "board.desktop",
            "gnome-shell",
            "a desktop session (gnome-shell) uses memory that the engine could have; `systemctl"
            " set-default multi-user.target` on the host turns it off.",
        ),
        (
            "board.throttled",
            ["under-voltage now", "throttled since the start"],
            "the board reports: under-voltage now, throttled since the start.",
        ),
        (
            "board.temperature",
            85.4,
            "the board has 85 °C and reduces its clocks.",
        ),
        (
            "board.time_synchronised",
            False,
            "the clock is not synchronised: certificates and times in logs may be wrong;"
            " `timedatectl set-ntp true` on the host.",
        ),
        (
            "board.upgrades.unattended",
            True,
            "unattended upgrades may upgrade Docker at any time, and restart every container"
            " where it is more than a patch release;"
            " `apt-mark hold containerd docker.io` prevents that.",
        ),
    ],
)
def test_named(pi: dict[str, Any], changed: Change, path: str, value: object, notice: str) -> None:
    found = found_on(changed(pi, path, value))
    assert found["notices"] == [notice]
    assert not found["problems"]
    assert not found["fixes"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("board.temperature", 84.9),
        ("board.temperature", None),
        ("board.throttled", None),
        ("board.time_synchronised", None),
    ],
)
def test_what_is_well_or_not_known_is_not_named(
    pi: dict[str, Any], changed: Change, path: str, value: object
) -> None:
    assert nothing(found_on(changed(pi, path, value)))


def test_a_container_has_its_hosts_clock(pi: dict[str, Any]) -> None:
    pi["board"] |= {"time_synchronised": False, "container": True}
    assert nothing(found_on(pi))


def test_held_packages_are_safe_from_unattended_upgrades(pi: dict[str, Any]) -> None:
    pi["board"]["upgrades"] = {"unattended": True, "held": ["containerd", "docker.io"]}
    assert nothing(found_on(pi))
