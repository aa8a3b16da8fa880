#!/usr/bin/env -S python3 -IS
"""Stands in for ssh: records what a real host answers, or answers from such a recording.

Ansible takes it as ansible_ssh_executable. Environment:
  FLEET_SSH_RECORD  folder: run the real ssh, and add the call and its answer to calls.jsonl there
  FLEET_SSH_ANSWER  folder: give the host's next answer of calls.jsonl, after the time that it took
Every host must make the recorded calls in the recorded order; another call ends with status 1.
"""

# It starts for every call of hundreds of hosts: what takes time to import is left out, or imported
# where it is used.
# ruff: noqa: PTH123
from __future__ import annotations

import fcntl
import json
import os
import re
import sys
import time

TOKEN = "latin-1"
"""Any byte is a character of it: JSON holds what was sent as it was."""


def normalized(command: str) -> str:
    """The command without what Ansible invents anew for each task."""
    return re.sub(r"ansible-tmp-[\d.]+-\d+-\d+", "ansible-tmp", command)


def standard_input() -> bytes:
    """What Ansible sends; where that is nothing, it gives a terminal, which never ends."""
    return b"" if sys.stdin.isatty() else sys.stdin.buffer.read()


def record(words: list[str], folder: str) -> int:
    """Pass the call on to ssh, and keep it with its answer."""
    import subprocess

    sent = standard_input()
    begun = time.monotonic()
    real = os.environ.get("FLEET_SSH_REAL", "ssh")
    done = subprocess.run([real, *words], input=sent, capture_output=True, check=False)
    call = {
        "command": normalized(words[-1]),
        "sent": len(sent),
        "seconds": time.monotonic() - begun,
        "status": done.returncode,
        "out": done.stdout.decode(TOKEN),
        "err": done.stderr.decode(TOKEN),
    }
    with open(f"{folder}/calls.jsonl", "a") as calls:
        fcntl.flock(calls, fcntl.LOCK_EX)
        calls.write(json.dumps(call) + "\n")
    sys.stdout.buffer.write(done.stdout)
    sys.stderr.buffer.write(done.stderr)
    return done.returncode


def answer(words: list[str], folder: str) -> int:
    """Give the recorded answer of the host's next call, and count the call and its bytes."""
    begun = time.monotonic()
    host, command = words[-2], normalized(words[-1])
    sent = len(standard_input())
    with open(f"{folder}/hosts/{host}", "a+") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        kept.seek(0)
        number = len(kept.readlines())
        with open(f"{folder}/calls.jsonl") as lines:
            calls = lines.readlines()
        call = json.loads(calls[number]) if number < len(calls) else None
        if call is None or call["command"] != command:
            missing = f"The answer to call {number + 1} is missing: {command}. Record again."
            print(missing, file=sys.stderr)
            return 1
        out, err = call["out"].encode(TOKEN), call["err"].encode(TOKEN)
        kept.write(f"{len(command) + sent + len(out) + len(err)}\n")
    time.sleep(max(0.0, call["seconds"] - (time.monotonic() - begun)))
    sys.stdout.buffer.write(out)
    sys.stderr.buffer.write(err)
    return int(call["status"])


def main() -> int:
    """Record, or answer."""
    words = sys.argv[1:]
    if words == ["-o", "ControlPersist"] or "-O" in words:
        # Ansible asks what this ssh can do, or ends a connection, which is none here.
        return 0
    if folder := os.environ.get("FLEET_SSH_RECORD"):
        return record(words, folder)
    return answer(words, os.environ["FLEET_SSH_ANSWER"])


if __name__ == "__main__":
    sys.exit(main())
