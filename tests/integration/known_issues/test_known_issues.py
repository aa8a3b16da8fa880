"""Known issues of boards, on boards: fixed where that is allowed, named where it is not.

tests/unit/edge_fleet/test_known_issues.py has tables of what is decided; here the decisions reach
a host.
"""

from __future__ import annotations

from typing import Any

from tests.integration.known_issues.conftest import HOSTS, board, changed, plan_table, run
from tests.playing import message, told

# A Jetson's power


def mode(jetson: Any) -> str:
    return str(jetson.check_output("nvpmodel -q").splitlines()[0].partition(": ")[2])


def test_power_mode_by_name(jetson: Any) -> None:
    assert mode(jetson) == "25W"
    done = run("issue-jetson", "--check", board_power_mode="MAXN")
    assert changed(done) > 0
    assert "Would set the power mode to MAXN." in message(done)
    assert mode(jetson) == "25W"
    assert "to be fixed: the power mode" in plan_table("issue-jetson", board_power_mode="MAXN")
    assert changed(run("issue-jetson", board_power_mode="MAXN")) > 0
    assert mode(jetson) == "MAXN"
    assert changed(run("issue-jetson", board_power_mode="MAXN")) == 0


def test_a_power_mode_that_takes_a_reboot(jetson: Any) -> None:
    boot = jetson.check_output("cat /proc/sys/kernel/random/boot_id")
    done = run("issue-jetson", board_power_mode="15W")
    assert changed(done) == 0
    assert (
        "issue-jetson: the power mode 15W needs a reboot, which is not allowed. The board stays at"
        " MAXN. Set board_reboot: true, and run site.yml again." in message(done)
    )
    assert mode(jetson) == "MAXN"
    assert jetson.check_output("cat /proc/sys/kernel/random/boot_id") == boot
    done = run("issue-jetson", board_power_mode="15W", board_reboot=True)
    assert changed(done) > 0
    assert mode(jetson) == "15W"
    assert jetson.check_output("cat /proc/sys/kernel/random/boot_id") != boot


def test_a_power_mode_that_does_not_come_into_force(jetson: Any) -> None:
    before = mode(jetson)
    done = run("issue-jetson", board_power_mode="MAXN_SUPER")
    assert done.returncode == 2
    assert (
        "issue-jetson: board_power_mode is MAXN_SUPER, but nvpmodel reports"
        f" {before} after the mode was set." in message(done)
    )


def test_a_power_mode_that_is_not_there_is_refused(jetson: Any) -> None:
    done = run("issue-jetson", board_power_mode="maxn")
    assert done.returncode == 2
    assert (
        "issue-jetson: board_power_mode is invalid: 'maxn'. Did you mean MAXN? Use 15W, 25W,"
        " MAXN or MAXN_SUPER." in message(done)
    )


def test_clocks_fan_and_compressed_swap(jetson: Any) -> None:
    asked = {"board_clocks": True, "board_fan": "cool", "board_zram": False}
    marks = ("/run/jetson_clocks", "/etc/systemd/system/edge-llm-clocks.service")
    conf, followed = "/etc/nvfancontrol.conf", "/var/lib/nvfancontrol/status"
    before = jetson.file(conf).content_string
    assert "quiet" in jetson.file(followed).content_string

    assert changed(run("issue-jetson", "--check", **asked)) > 0
    assert not any(jetson.file(mark).exists for mark in marks)
    assert jetson.file(conf).content_string == before
    assert "zram" in jetson.file("/proc/swaps").content_string
    assert "1,904 MiB of swap are compressed memory (zram)" in plan_table("issue-jetson")

    assert changed(run("issue-jetson", **asked)) > 3
    assert all(jetson.file(mark).exists for mark in marks)
    assert jetson.service("edge-llm-clocks").is_enabled
    assert jetson.file(conf).content_string == before.replace("quiet", "cool")
    assert "cool" in jetson.file(followed).content_string
    (backup,) = jetson.check_output(f"ls {conf}.*").split()
    assert jetson.file(backup).content_string == before
    assert "zram" not in jetson.file("/proc/swaps").content_string
    assert not jetson.service("nvzramconfig").is_enabled

    assert changed(run("issue-jetson", **asked)) == 0
    assert changed(run("issue-jetson", board_clocks=False)) > 0
    assert not jetson.file(marks[1]).exists
    assert changed(run("issue-jetson", board_clocks=False)) == 0


# A Python that is too old


def test_an_older_python() -> None:
    host = board("issue-03")
    done = run("old-python")
    assert done.returncode == 2
    assert (
        "old-python: Python on the host is too old: python3 is 3.6.9, and 3.8 or newer is needed."
        " Set board_python_install: true, which installs python3.8 from the system's archive beside"
        " it, or set ansible_python_interpreter to a Python on the host." in message(done)
    )
    assert not host.file("/usr/bin/python3.8").exists
    done = run("old-python", "--check", board_python_install=True)
    assert done.returncode == 2
    assert "old-python: would install python3.8 beside python3 3.6.9" in message(done)
    assert not host.file("/usr/bin/python3.8").exists
    assert run("old-python", board_python_install=True).returncode == 0
    assert host.file("/usr/bin/python3.8").exists
    assert host.check_output("python3 --version") == "Python 3.6.9"
    # It is found again without being installed again.
    assert changed(run("old-python")) == 0


# The plan


def plans(limit: str, playbook: str, *words: str) -> dict[str, Any]:
    """Host -> what a playbook decided, by what its tasks handed on."""
    status, output = told(playbook, limit, *HOSTS, *words)
    assert status == 0, output
    found = {}
    for each in output["plays"]:
        for task in each["tasks"]:
            for host, result in task["hosts"].items():
                if "preflight_plan" in result.get("ansible_facts", {}):
                    found[host] = result["ansible_facts"]["preflight_plan"]
    return found


def test_plan_and_check_agree_on_clean_hosts() -> None:
    checked = plans("clean,old-python", "site.yml", "--check")
    assert set(checked) == {"clean", "old-python"}
    assert plans("clean,old-python", "playbooks/plan.yml") == checked
