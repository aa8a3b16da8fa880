"""A worker of Ansible gets the project's packages from the process that it was forked from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

# Runs in a worker, where it tells whether the packages were imported before the worker existed.
LOOKUP = """
import sys
from ansible.plugins.lookup import LookupBase

class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        return ["imported" if "edge_fleet.plan.build" in sys.modules else "missing"]
"""

PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Tell
      ansible.builtin.debug:
        msg: "the packages are {{ lookup('packages') }}"
"""


def test_workers_do_not_import_the_packages_again(tmp_path: Path) -> None:
    (tmp_path / "packages.py").write_text(LOOKUP)
    (tmp_path / "told.yml").write_text(PLAYBOOK)
    ran = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            "-i",
            "localhost,",
            tmp_path / "told.yml",
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_LOOKUP_PLUGINS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the packages are imported" in ran.stdout, ran.stdout + ran.stderr
