"""What a command and all its processes take. Each runs apart: measuring ends all children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.fleet import usage

ROOT = Path(__file__).parents[4]
MEASURE = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from benchmarks.fleet.usage import measured
try:
    used = measured(["sh", "-c", sys.argv[1]], Path("/"), os.environ, limit=float(sys.argv[2]))
except TimeoutError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps(asdict(used)))
"""
BUSY = f"{sys.executable} -c 'import time\nwhile time.process_time() < 0.5: pass'"


def measured(command: str, limit: float = 60) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, command, str(limit)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_status_output_and_time() -> None:
    found = measured("echo out; echo err >&2; sleep 0.3; exit 3")
    assert (found["status"], found["output"]) == (3, "out\nerr\n")
    assert found["seconds"] >= 0.3
    assert found["cpu"] < 0.3


def test_the_cpu_of_grandchildren_counts() -> None:
    assert 0.9 <= measured(f"{BUSY}; ({BUSY})")["cpu"] < 3


def test_a_process_that_leaves_its_parent_counts_and_is_ended(tmp_path: Path) -> None:
    """As an SSH connection that Ansible keeps."""
    pid = tmp_path / "pid"
    found = measured(
        f"setsid sh -c '{BUSY.replace(chr(39), chr(34))}; echo $$ > {pid}; exec sleep 1000'"
        f" >/dev/null 2>&1 & while ! [ -s {pid} ]; do sleep 0.05; done"
    )
    assert found["cpu"] >= 0.5
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_the_peak_is_that_of_all_processes_together() -> None:
    one = f"{sys.executable} -c 'import time; kept = bytearray(b\"1\") * 60_000_000; time.sleep(3)'"
    found = measured(f"{one} & {one} & wait")
    assert 110 < found["peak"] < 200


def test_pages_that_a_fork_shares_count_once() -> None:
    forked = (
        "import os, time; kept = bytearray(b'1') * 60_000_000\n"
        "for _ in range(4):\n    if not os.fork(): time.sleep(3); os._exit(0)\n"
        "for _ in range(4): os.wait()"
    )
    found = measured(f'{sys.executable} -c "{forked}"')
    assert 55 < found["peak"] < 110


def test_the_memory_of_ssh_is_counted_apart(tmp_path: Path) -> None:
    """A connection that is kept, and what stands in for one."""
    stand_in = tmp_path / "benchmarks/fleet/ssh.py"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text("import time; kept = bytearray(b'1') * 60_000_000; time.sleep(3)")
    found = measured(f"{sys.executable} {stand_in}")
    assert found["ssh"] > 55
    assert found["peak"] < 30
    for pid, name in ((1, "ssh"), (2, "sshd"), (3, "python3")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "comm").write_text(f"{name}\n")
        (tmp_path / str(pid) / "cmdline").write_bytes(b"ssh: /cp/1 [mux]\0")
    assert [usage.is_ssh(pid, tmp_path) for pid in (1, 2, 3, 4)] == [True, False, False, False]


def test_a_command_that_hangs_is_ended() -> None:
    assert measured("sleep 1000", limit=0.5) == {"error": "sh ran for more than 0.5 s."}


def test_descendants_are_of_all_generations() -> None:
    assert sorted(usage.descendants(1, {2: 1, 3: 2, 4: 3, 5: 9, 6: 1})) == [2, 3, 4, 6]
    assert usage.parents()[os.getpid()] == os.getppid()
