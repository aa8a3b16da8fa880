"""What a run shows and keeps of a host whose Docker has a proxy with a password."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MIRROR = "https://mirror.example"
OPTIONS = {
    "proxies": {"http-proxy": "http://user:hunter2@proxy.example:3128"},
    "registry-mirrors": [MIRROR],
}
# As library/host_info.py, of a system that is a folder.
_HOST_INFO = """\
#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.host_info.state import read_state
options = {{name: {{"type": "raw"}} for name in ("root", "program")}}
options["secrets"] = {{"type": "dict", "no_log": True}}
module = AnsibleModule(options, supports_check_mode=True)
module.exit_json(changed=False, state=read_state(**module.params, system={system!r}))
"""


def plan_host(folder: Path, *options: str) -> str:
    """Gather the facts of a host and plan it, and return all that Ansible says."""
    modules, system, bin_folder = (folder / name for name in ("library", "system", "bin"))
    for each in (modules, system / "etc/docker", bin_folder):
        each.mkdir(parents=True, exist_ok=True)
    (system / "etc/docker/daemon.json").write_text(json.dumps(OPTIONS))
    (system / "etc/os-release").write_text('ID=debian\nVERSION_ID="13"\n')
    (system / "proc").mkdir(exist_ok=True)
    memory = "MemTotal: 8245856 kB\nMemAvailable: 6985556 kB\n"
    (system / "proc/meminfo").write_text(memory)
    (modules / "host_info.py").write_text(_HOST_INFO.format(system=str(system)))
    # Nothing is asked of this machine's Docker.
    (bin_folder / "docker").write_text("#!/bin/sh\nexit 1\n")
    (bin_folder / "docker").chmod(0o755)
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "environment": {"PATH": f"{bin_folder}:{os.environ['PATH']}"},
        "vars": {
            "board_root": str(folder / "edge-llm"),
            "board_facts_file": str(folder / "facts.json"),
            "board_secrets_dir": str(folder / "secrets"),
            "llm_api_key": "a-key-of-forty-characters-for-this-test-x",
        },
        "tasks": [{"ansible.builtin.import_role": {"name": "preflight"}}],
    }
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([play]))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("-i", "localhost,", "-c", "local"),
            *("-e", f"ansible_python_interpreter={sys.executable}"),
            *options, str(playbook),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LIBRARY": f"{modules}:{ROOT / 'library'}",
        },
    )  # fmt: skip
    # This machine need not be one that can be a host: its facts are kept before it is refused.
    return done.stdout + done.stderr


@pytest.mark.parametrize("was", [None, 0o644, 0o640])
def test_no_password_of_docker_is_shown_or_kept(tmp_path: Path, was: int | None) -> None:
    facts = tmp_path / "facts.json"
    if was is not None:
        facts.write_text("{}\n")
        facts.chmod(was)
    said = plan_host(tmp_path, "--check", "--diff", "-vvv")
    kept = json.loads(facts.read_text())
    assert kept["docker"]["daemon_json"] == {"registry-mirrors": [MIRROR]}
    assert facts.stat().st_mode & 0o777 == 0o600
    assert "hunter2" not in facts.read_text()
    # The facts themselves are shown, so that a password among them would be.
    assert MIRROR in said
    assert "Refuse settings that cannot work on the host" in said
    assert "hunter2" not in said
