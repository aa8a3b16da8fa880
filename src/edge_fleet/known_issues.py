"""Known issues of boards: conditions that make a deployment fail or measure wrong, and their fixes.

Pure functions over the facts of a host: nothing here reads a file or a host. An issue is fixed
where that is allowed and harmless, and reported where it is not. docs/boards.md has each issue with
its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from edge_fleet.settings import Settings
from edge_fleet.text import Problem, did_you_mean, join_choices
from edge_host.sizes import format_mib

CGROUP_WORD = "cgroup_enable=memory"
HOT = 85.0
"""Degrees Celsius from which boards reduce their clocks."""


@dataclass(frozen=True)
class KnownIssues:
    """The known issues of one host.

    Attributes:
        problems: why the host cannot be deployed.
        notices: what a person should know.
        fixes: what the tuning role is to do, by name, with its argument.
        reboot: for what the host must be rebooted.
        may_reboot: whether the run may reboot it.
    """

    problems: tuple[Problem, ...]
    notices: tuple[str, ...]
    fixes: Mapping[str, Any]
    reboot: tuple[str, ...]
    may_reboot: bool


def diagnose(state: Mapping[str, Any], settings: Settings) -> KnownIssues:
    """The known issues of a host. `state` are its facts, as host_info returned them."""
    diagnosis = Diagnosis(state, settings)
    diagnosis.run()
    return KnownIssues(
        problems=tuple(diagnosis.problems),
        notices=tuple(diagnosis.notices),
        fixes=MappingProxyType(diagnosis.fixes),
        reboot=tuple(diagnosis.reboot),
        may_reboot=settings.board_reboot,
    )


class Diagnosis:
    """Looks for each known issue on one host."""

    def __init__(self, state: Mapping[str, Any], settings: Settings) -> None:
        self.board: Mapping[str, Any] = state["board"]
        self.docker: Mapping[str, Any] = state["docker"]
        self.settings = settings
        self.jetson = self.board["kind"] == "jetson"
        self.problems: list[Problem] = []
        self.notices: list[str] = []
        self.fixes: dict[str, Any] = {}
        self.reboot: list[str] = []

    def run(self) -> None:
        """Look for all of them."""
        self._memory_cgroup()
        self._power_mode()
        self._clocks()
        self._fan()
        self._swap()
        self._notices()

    def _reboot_for(self, reason: str, effect: str) -> None:
        """Note that a fix is complete after the host's next start only."""
        self.reboot.append(reason)
        if not self.settings.board_reboot:
            self.notices.append(
                f"{effect} after the next start only. Set board_reboot: true to allow a reboot."
            )

    # A Raspberry Pi's memory cgroup.

    def _memory_cgroup(self) -> None:
        if self.board["kind"] != "pi" or self.board["kernel"]["memory_cgroup"] is not False:
            return
        boot = self.board["boot"]
        if boot["file"] is None:
            self.notices.append(
                "the kernel's memory cgroup is off, so containers' memory has no limit, and no"
                f" cmdline.txt was found. Add {CGROUP_WORD} to the kernel's command line."
            )
            return
        if boot["lines"] != 1:
            self.problems.append(
                f"{boot['file']} is invalid: it has {boot['lines']} lines, and the firmware reads"
                " one. Join them in one line."
            )
            return
        words = [
            word for word in boot["file_words"] if word in (CGROUP_WORD, "cgroup_disable=memory")
        ]
        if words[-1:] != [CGROUP_WORD]:
            self.fixes["memory_cgroup"] = boot["file"]
        elif CGROUP_WORD in boot["words"]:
            # The kernel was started with the word, and the cgroup is off all the same.
            self.notices.append(
                f"the kernel's memory cgroup is off although its command line has {CGROUP_WORD}:"
                " the kernel cannot limit containers' memory."
            )
            return
        self._reboot_for("the kernel's memory cgroup", "containers' memory is limited")

    # Power, clocks and fan.

    def _power_mode(self) -> None:
        wanted, power = self.settings.board_power_mode, self.board["power"]
        if wanted is None:
            return
        modes = (power or {}).get("modes") or {}
        if not modes:
            self.problems.append(
                "board_power_mode does not fit: the host has no nvpmodel. Remove the variable."
            )
        elif wanted not in modes:
            hint = did_you_mean(wanted.upper(), modes)
            self.problems.append(
                f"board_power_mode is invalid: {wanted!r}.{hint} Use {join_choices(sorted(modes))}."
            )
        elif power["mode"] != wanted:
            self.fixes["power_mode"] = {"name": wanted, "id": modes[wanted]}

    def _only_for_jetsons(self, name: str) -> None:
        self.problems.append(f"{name} does not fit: the host is no Jetson. Remove the variable.")

    def _clocks(self) -> None:
        clocks, tuning = self.settings.board_clocks, self.board["tuning"]
        # Facts that an earlier version has gathered do not say.
        outdated = tuning["clocks"] and tuning.get("clocks_unit") is False
        if clocks is None:
            # The unit of an earlier run stays, as this version has it.
            if outdated:
                self.fixes["clocks"] = True
        elif not self.jetson:
            self._only_for_jetsons("board_clocks")
        elif clocks != tuning["clocks"] or (clocks and outdated):
            self.fixes["clocks"] = clocks

    def _fan(self) -> None:
        fan, current = self.settings.board_fan, self.board["tuning"]["fan"]
        if fan is None:
            return
        if not self.jetson:
            self._only_for_jetsons("board_fan")
        elif current is None:
            self.problems.append(
                "board_fan does not fit: the host has no nvfancontrol with a profile. Remove the"
                " variable."
            )
        elif fan != current:
            self.fixes["fan"] = fan

    # Swap.

    def _swap(self) -> None:
        size, wanted = self.board["zram_total"], self.settings.board_zram
        if wanted is not None and not self.jetson:
            self._only_for_jetsons("board_zram")
        elif size and wanted is False:
            self.fixes["zram"] = False
        elif size and self.jetson and wanted is None:
            self.notices.append(
                f"{format_mib(size)} of swap are compressed memory (zram), which the GPU cannot"
                " use. board_zram: false turns it off."
            )

    # What is reported, and left to people.

    def _notices(self) -> None:
        board = self.board
        if board["desktop"] and board["kind"] in ("jetson", "pi"):
            self.notices.append(
                f"a desktop session ({board['desktop']}) uses memory that the engine could have;"
                " `systemctl set-default multi-user.target` on the host turns it off."
            )
        if board["throttled"]:
            self.notices.append(f"the board reports: {', '.join(board['throttled'])}.")
        if board["temperature"] is not None and board["temperature"] >= HOT:
            self.notices.append(
                f"the board has {board['temperature']:.0f} °C and reduces its clocks."
            )
        # A container has its host's clock.
        if board["time_synchronised"] is False and not board["container"]:
            self.notices.append(
                "the clock is not synchronised: certificates and times in logs may be wrong;"
                " `timedatectl set-ntp true` on the host."
            )
        if board["upgrades"]["unattended"] and self.docker["running"]:
            loose = set(self.docker["packages"]) - set(board["upgrades"]["held"])
            if loose:
                self.notices.append(
                    "unattended upgrades may upgrade Docker at any time, and restart every"
                    " container where it is more than a patch release;"
                    f" `apt-mark hold {' '.join(sorted(loose))}` prevents that."
                )
