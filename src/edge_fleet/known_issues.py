"""Traps of boards: what on a host would make a deployment fail or lie, and what is done about it.

Pure functions over what host_info read: nothing here reads a file or a host. A trap is mended
where that is allowed and harmless, and named where it is not. docs/boards.md has each with its
source.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from edge_fleet.text import format_mib, parse_version

OPTIONS: dict[str, Any] = {
    "reboot": False,
    "restart_docker": False,
    "power_mode": None,
    "clocks": None,
    "fan": None,
    "zram": None,
}
"""The board_* variables that traps read, and their defaults: what is None is left as it is."""
FANS = ("quiet", "cool")
WORD = "cgroup_enable=memory"
# Docker 28.0.0 and 28.0.1 know no way around a kernel without a raw table: moby/moby#49557, #49621.
NO_WAY = ((28, 0, 0), (28, 0, 1))
RAW_SINCE = (28, 0, 0)
HOT = 85.0
"""Degrees Celsius from which boards slow themselves down."""


class Found:
    """What was found on one host."""

    def __init__(self, state: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.board: Mapping[str, Any] = state["board"]
        self.docker: Mapping[str, Any] = state["docker"]
        self.options = OPTIONS | dict(options)
        self.problems: list[str] = []
        self.notices: list[str] = []
        self.fixes: dict[str, Any] = {}
        self.reboot: list[str] = []

    def look(self) -> None:
        """Look for all of them."""
        self._wrong_options()
        self._memory_cgroup()
        self._raw_table()
        self._power_mode()
        self._clocks_and_fan()
        self._swap()
        self._named()

    def _wrong_options(self) -> None:
        for name in ("reboot", "restart_docker"):
            if not isinstance(self.options[name], bool):
                self.problems.append(
                    f"board_{name} is {self.options[name]!r}; accepted is true or false."
                )
        for name in ("clocks", "zram"):
            if not isinstance(self.options[name], bool | None):
                self.problems.append(
                    f"board_{name} is {self.options[name]!r}; accepted is true, false, or nothing."
                )

    def _allowed(self, why: str, what: str) -> None:
        """Note that a fix is complete after the host's next start only."""
        self.reboot.append(why)
        if self.options["reboot"] is not True:
            self.notices.append(f"{what} from the next start on: board_reboot: true allows it.")

    # A Raspberry Pi's memory cgroup.

    def _memory_cgroup(self) -> None:
        if self.board["kind"] != "pi" or self.board["kernel"]["memory_cgroup"] is not False:
            return
        boot = self.board["boot"]
        if boot["file"] is None:
            self.notices.append(
                "the kernel's memory cgroup is off, so that containers' memory has no limit, and no"
                f" cmdline.txt was found; add {WORD} to the kernel's command line."
            )
            return
        if boot["lines"] != 1:
            self.problems.append(
                f"{boot['file']} has {boot['lines']} lines, and the firmware reads one; make one of"
                " them."
            )
            return
        told = [word for word in boot["file_words"] if word in (WORD, "cgroup_disable=memory")]
        if told[-1:] != [WORD]:
            self.fixes["memory_cgroup"] = boot["file"]
        elif WORD in boot["words"]:
            # Asked for, heard by the kernel, and off all the same.
            self.notices.append(
                f"the kernel's memory cgroup is off although its command line has {WORD}: it"
                " cannot limit containers' memory."
            )
            return
        self._allowed("the kernel's memory cgroup", "containers' memory is limited")

    # Docker 28 on a kernel without a raw table.

    def _raw_table(self) -> None:
        if self.board["kernel"]["ip_nf_raw"] is not False or self.board["kind"] != "jetson":
            return
        # Where none is installed, the archive's newest will be.
        version = parse_version(self.docker["version"] or "999")
        if version in NO_WAY:
            self.problems.append(
                f"the host has Docker {self.docker['version']}, which cannot publish ports on a"
                " kernel without a raw table (CONFIG_IP_NF_RAW), as L4T's is; install 27.5.1, or"
                " 28.0.2 or newer."
            )
            return
        if self.docker["running"] and version < RAW_SINCE:
            # An upgrade would be the trap: it is kept from coming by itself.
            held = set(self.board["upgrades"]["held"])
            packages = [name for name in self.docker["packages"] if name not in held]
            if packages and self.board["upgrades"]["unattended"]:
                self.fixes["hold"] = packages
            return
        if self.docker["no_raw"]:
            return
        if self.docker["containers"] and self.options["restart_docker"] is not True:
            self.problems.append(
                f"Docker {self.docker['version']} cannot publish ports on this kernel, which has no"
                " raw table (CONFIG_IP_NF_RAW), until it is told to do without; that takes a"
                f" restart of Docker, and {self.docker['containers']} containers run:"
                " board_restart_docker: true allows it."
            )
            return
        self.fixes["no_raw"] = self.docker["running"]

    # Power.

    def _power_mode(self) -> None:
        asked, power = self.options["power_mode"], self.board["power"]
        if asked is None:
            return
        modes = (power or {}).get("modes") or {}
        if not modes:
            self.problems.append(
                f"board_power_mode is {asked!r}, and the host has no nvpmodel; leave it out."
            )
            return
        if asked not in modes:
            close = difflib.get_close_matches(str(asked).upper(), modes, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            self.problems.append(
                f"board_power_mode is {asked!r}{hint}; accepted are: {', '.join(sorted(modes))}."
            )
            return
        if power["mode"] != asked:
            self.fixes["power_mode"] = {"name": asked, "id": modes[asked]}

    def _clocks_and_fan(self) -> None:
        jetson = self.board["kind"] == "jetson"
        for name in ("clocks", "fan"):
            if self.options[name] is not None and not jetson:
                self.problems.append(f"board_{name} is for Jetsons; leave it out.")
        if not jetson:
            return
        clocks, fan, there = self.options["clocks"], self.options["fan"], self.board["tuning"]
        if isinstance(clocks, bool) and clocks != there["clocks"]:
            self.fixes["clocks"] = clocks
        if fan is None:
            return
        if fan not in FANS:
            self.problems.append(f"board_fan is {fan!r}; accepted are: {', '.join(FANS)}.")
        elif there["fan"] is None:
            self.problems.append(
                f"board_fan is {fan!r}, and the host has no nvfancontrol with a profile; leave it"
                " out."
            )
        elif fan != there["fan"]:
            self.fixes["fan"] = fan

    # Swap.

    def _swap(self) -> None:
        zram = self.board["zram_total"]
        if self.options["zram"] is not None and self.board["kind"] != "jetson":
            self.problems.append("board_zram is for Jetsons; leave it out.")
        elif zram and self.options["zram"] is False:
            self.fixes["zram"] = False
        elif zram and self.board["kind"] == "jetson" and self.options["zram"] is None:
            self.notices.append(
                f"{format_mib(zram)} of swap are compressed memory (zram), which the GPU cannot"
                " use; board_zram: false turns it off."
            )

    # What is named, and left to people.

    def _named(self) -> None:
        board = self.board
        if board["desktop"] and board["kind"] in ("jetson", "pi"):
            self.notices.append(
                f"a desktop session ({board['desktop']}) takes memory that the engine could have;"
                " `systemctl set-default multi-user.target` on the host ends it for good."
            )
        if board["throttled"]:
            self.notices.append(f"the board says: {', '.join(board['throttled'])}.")
        if board["temperature"] is not None and board["temperature"] >= HOT:
            self.notices.append(
                f"the board has {board['temperature']:.0f} °C, at which it slows itself down."
            )
        # A container has its host's clock.
        if board["time_synchronised"] is False and not board["container"]:
            self.notices.append(
                "the clock is not synchronised: certificates and times in logs may be wrong;"
                " `timedatectl set-ntp true` on the host."
            )
        if board["upgrades"]["unattended"] and self.docker["running"] and "hold" not in self.fixes:
            loose = set(self.docker["packages"]) - set(board["upgrades"]["held"])
            if loose:
                self.notices.append(
                    "unattended upgrades may restart Docker, and every container with it, at any"
                    f" time; `apt-mark hold {' '.join(sorted(loose))}` keeps them from it."
                )


def traps(
    state: Mapping[str, Any], host: str, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a host's traps are: {"problems", "notices" (sentences), "fixes" (what is to be done, by
    name), "reboot" (for what the host must start anew), "may_reboot"}.

    `state` is what host_info returned; `options` are the board_* variables of OPTIONS.
    """
    found = Found(state, options or {})
    found.look()
    return {
        "problems": [f"{host}: {each}" for each in found.problems],
        "notices": found.notices,
        "fixes": found.fixes,
        "reboot": found.reboot,
        "may_reboot": found.options["reboot"] is True,
    }
