"""playbooks/status.yml: a host that is read, one that is off, and what is written for scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_a_host_without_a_release_and_one_that_is_off(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(
        "all:\n"
        "  hosts:\n"
        f"    here: {{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}\n"
        # Nothing listens at the port.
        "    lost: {ansible_host: 127.0.0.1, ansible_port: 1, ansible_ssh_retries: 0}\n"
    )
    deployment, file = tmp_path / "edge-llm", tmp_path / "status.json"
    deployment.mkdir()
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("-i", inventory, "-e", f"board_root={deployment}", "-e", f"status_file={file}"),
            "playbooks/status.yml",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
    )
    assert done.returncode == 0, done.stdout
    assert "2 of 2 hosts have problems: here, lost" in done.stdout
    here, lost = json.loads(file.read_text())["hosts"]
    assert here["problems"][0] == "The host has no release. Run site.yml."
    assert here["memory_total"] > here["memory_used"] > 0
    assert lost["problems"][0].startswith("The host is not reached: ")
    assert list(deployment.iterdir()) == []
