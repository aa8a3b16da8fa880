"""A connection to no host: commands are answered from a file of facts."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = r"""
name: recorded
short_description: Answers commands from a file of facts
description:
  - Writes each call to a log, a line for each, with the options of the connection.
options:
  facts:
    description: The file of facts; without one the host does not answer.
    vars: [{name: recorded_facts}]
  log:
    description: The log.
    vars: [{name: recorded_log}]
  seconds:
    description: How long a host takes to answer, or not to answer.
    type: float
    default: 0
    vars: [{name: recorded_seconds}]
  absent:
    description: Whether the host has no program.
    type: bool
    default: false
    vars: [{name: recorded_absent}]
  address:
    description: The address of the host.
    vars: [{name: ansible_host}]
  host:
    description: The name of the host.
    vars: [{name: inventory_hostname}]
"""


class Connection(ConnectionBase):  # type: ignore[misc]
    transport = "recorded"
    has_pipelining = True

    def _connect(self) -> Connection:
        return self

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        if log := self.get_option("log"):
            entry = {
                "host": self.get_option("host"),
                "address": self.get_option("address"),
                "command": cmd,
                "password": self.become and self.become.get_option("become_pass"),
            }
            with Path(log).open("a") as file:
                file.write(f"{json.dumps(entry)}\n")
        time.sleep(self.get_option("seconds"))
        if not self.get_option("facts"):
            raise AnsibleConnectionFailure("Connection timed out")
        if self.get_option("absent") and b"PK" not in (in_data or b""):
            return 0, b"edge-llm: the program is absent\n", b""
        return 0, Path(self.get_option("facts")).read_bytes().replace(b"\n", b""), b""

    def put_file(self, in_path: str, out_path: str) -> None:
        raise NotImplementedError

    def fetch_file(self, in_path: str, out_path: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass
