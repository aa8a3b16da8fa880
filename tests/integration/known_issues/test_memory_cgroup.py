"""A Raspberry Pi's memory cgroup: fixed where that is allowed, named where it is not."""

from __future__ import annotations

from typing import Any

from tests.integration.known_issues.conftest import changed, plan_table, run
from tests.playing import message, restart

CMDLINE = "/boot/firmware/cmdline.txt"
OFF = "cgroup_disable=memory"
ON = "cgroup_enable=memory"


def test_memory_cgroup(pi: Any) -> None:
    before = pi.file(CMDLINE).content_string
    assert ON not in before

    done = run("issue-pi", "--check", "--diff")
    assert changed(done) > 0
    assert f"+{before.strip()} {ON}" in done.stdout
    assert pi.file(CMDLINE).content_string == before, "a check run changes nothing"
    table = plan_table("issue-pi")
    assert "to be fixed: the kernel's memory cgroup, in its command line" in table
    assert (
        "note: containers' memory is limited after the next start only. Set board_reboot" in table
    )

    boot = pi.check_output("cat /proc/sys/kernel/random/boot_id")
    assert changed(run("issue-pi")) > 0
    assert pi.file(CMDLINE).content_string == f"{before.strip()} {ON}\n"
    (backup,) = pi.check_output(f"ls {CMDLINE}.*").split()
    assert pi.file(backup).content_string == before
    assert pi.check_output("cat /proc/sys/kernel/random/boot_id") == boot, "nobody allowed it"
    done = run("issue-pi")
    assert changed(done) == 0
    assert "to be fixed" not in plan_table("issue-pi")

    done = run("issue-pi", board_reboot=True)
    assert changed(done) > 0
    assert pi.check_output("cat /proc/sys/kernel/random/boot_id") != boot
    assert changed(run("issue-pi", board_reboot=True)) == 0, "once is enough"
    assert "note:" not in plan_table("issue-pi")


def test_what_turns_the_memory_cgroup_off_is_taken_out(pi: Any) -> None:
    words = "console=tty1 rootwait"
    pi.run_test(f"echo '{ON} {words} {OFF}' > {CMDLINE}")
    restart("reboot", "issue-02")
    assert changed(run("issue-pi")) > 0
    assert pi.file(CMDLINE).content_string == f"{words} {ON}\n"


def test_a_reboot_that_does_not_help_is_told(pi: Any) -> None:
    """A kernel without the memory cgroup, whatever its command line says."""
    pi.run_test(f"echo rootwait > {CMDLINE}")
    # The firmware of this board reads another file.
    init = "/usr/local/share/edge-llm-sandbox/firmware"
    pi.run_test(f"echo rootwait > {init}")
    restart("reboot", "issue-02")
    try:
        done = run("issue-pi", board_reboot=True)
    finally:
        pi.run_test(f"rm {init}")
    assert done.returncode == 2
    assert (
        "issue-pi: the kernel's memory cgroup is still off after a reboot, so containers' memory"
        f" has no limit: the kernel was started with {OFF}." in message(done)
    )


def test_a_command_line_of_two_lines_is_not_touched(pi: Any) -> None:
    text = "console=tty1\nrootwait\n"
    pi.run_test(f"printf '{text}' > {CMDLINE}")
    restart("reboot", "issue-02")
    done = run("issue-pi")
    assert done.returncode == 2
    assert (
        f"issue-pi: {CMDLINE} is invalid: it has 2 lines, and the firmware reads one. Join them"
        " in one line." in message(done)
    )
    assert pi.file(CMDLINE).content_string == text
