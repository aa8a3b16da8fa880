#!/usr/bin/python
"""The release module: parameters in, a release on the host out; see `edge_llm_release`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_llm_host import JOURNAL, ROOT, read_history, read_text
from ansible.module_utils.edge_llm_program import install as put
from ansible.module_utils.edge_llm_recovery import SERVICE, starter, unit
from ansible.module_utils.edge_llm_release import (
    UNIT,
    Failure,
    Host,
    difference,
    former,
    key_hash,
    make_engine_key,
    outcome,
    recover,
    restore_seconds,
    same,
    sentence,
    stage,
    until,
    write,
)

DOCUMENTATION = r"""
module: release
short_description: Change a host over to a release, and back where it is not proven
description:
  - Stages a release, changes over to it, proves it, and commits it; or puts the one before back,
    and fails.
  - The change itself runs on the host as a unit of systemd's, so that it comes to an end
    whatever becomes of the connection.
  - In check mode tells whether anything would change, and what of the files.
options:
  root:
    description: The deployment's folder.
    type: path
    default: /opt/edge-llm
  action:
    description:
      - V(deploy) changes to what the other options say.
      - V(rollback) changes to what O(to) was.
    type: str
    choices: [deploy, rollback]
    default: deploy
  compose:
    description: The text of docker-compose.yml, with a token for the slot of each part.
    type: str
    default: ""
  env:
    description: The text of .env.
    type: str
    default: ""
  engine:
    description: The text of the file by which the chat API finds its engine.
    type: str
    default: ""
  about:
    description: >-
      What else a release says of itself; plan, start_timeout, drain_timeout and swap.
    type: dict
    default: {}
  to:
    description: The number of the release to go back to. The previous one, where this is left out.
    type: int
  expected:
    description: The number of the release that the host ran when it was looked at; 0 for none.
    type: int
  host:
    description: The host's name, for the sentences.
    type: str
    required: true
  owner:
    description: >-
      User id of the containers' user, who reads the engine's key; the key is made where there is
      none.
    type: int
    required: true
  by:
    description: Who changes the host, for whoever comes meanwhile.
    type: str
    required: true
author: edge-llm
"""

EXAMPLES = r"""
- name: Go back
  release:
    host: jetson-01
    owner: 10010
    action: rollback
    expected: 7
    by: alice@laptop
"""

RETURN = r"""
told:
  description: >-
    What became of it: from, to, provider, model, parts (that changed), beside (whether both engines
    were loaded at once), pause and seconds (of the pause that clients met, and of the whole
    change), steps (the seconds of each), outcome.
  returned: success
  type: dict
"""


def install(root: Path) -> None:
    """Put the program that changes releases, and restores one at the host's start, on the host."""
    put(root / "lib")
    path = Path("/etc/systemd/system") / SERVICE
    text = unit(root, sys.executable)
    if read_text(path) != text:
        write(path, text)
        systemctl("daemon-reload")
    systemctl("enable", SERVICE)
    await_recovery(Host(str(root)))


def await_recovery(host: Host) -> None:
    """Wait until the host is recovered, or cannot be: `recover` has the words for that.

    The unit is active from then on: it is started again with Docker only if it is.
    """
    # Where it is being started, or about to be, this waits for that.
    subprocess.run(["systemctl", "--quiet", "start", SERVICE], capture_output=True, check=False)
    # One that was killed fails, and is started again by systemd after a moment: once, not for ever.
    until(
        lambda: (
            systemctl("is-active", SERVICE, accepted=(0, 3)) not in ("activating", "deactivating")
        ),
        2 * restore_seconds(host.current()),
    )


def systemctl(*words: str, accepted: Sequence[int] = (0,)) -> str:
    """What systemctl says; raises Failure where it fails."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    if done.returncode not in accepted:
        raise Failure(f"systemctl {' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def run_change(host: Host, number: int, action: str, by: str) -> None:
    """Have systemd run the change, and wait for its end; what it left half done is undone then."""
    program = [sys.executable, "-m", "edge_llm.edge_llm_release"]
    done = subprocess.run(
        [
            "systemd-run", "--quiet", "--wait", "--collect", f"--unit={UNIT}-{number}",
            f"--setenv=EDGE_LLM_ROOT={host.root}",
            f"--property=WorkingDirectory={host.root}/lib",
            f"--property=ExecStopPost={starter(host.root / JOURNAL)}",
            *program, "change", str(number), action, by,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # What became of it stands in the history; systemd's own refusal does not.
    if done.returncode != 0 and done.stderr.strip():
        raise Failure(f"the change could not be run: {done.stderr.strip()}")
    if (host.root / JOURNAL).exists():
        await_recovery(host)


def main() -> None:
    """Change over, and tell Ansible."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": ROOT},
            "action": {"type": "str", "choices": ["deploy", "rollback"], "default": "deploy"},
            "compose": {"type": "str", "default": ""},
            "env": {"type": "str", "default": ""},
            "engine": {"type": "str", "default": ""},
            "about": {"type": "dict", "default": {}},
            "to": {"type": "int"},
            "expected": {"type": "int"},
            "host": {"type": "str", "required": True},
            "owner": {"type": "int", "required": True},
            "by": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    host = Host(asked["root"])
    try:
        before = host.current()
        if asked["action"] == "rollback":
            asked.update(former(host, asked["to"]))
        diff = difference(before, asked)
        if module.check_mode:
            module.exit_json(changed=True, diff=diff)
        install(host.root)
        with host.locked(asked["by"]):
            recover(host)
            before = host.current()
            found = before.number if before else 0
            if asked["expected"] not in (None, found):
                looked = f"release {asked['expected']}" if asked["expected"] else "nothing"
                raise Failure(
                    f"the host runs {before or 'nothing'} now, and ran {looked} when it was looked"
                    " at; run this again"
                )
            about = {**asked["about"], "by": asked["by"]}
            # What is asked may be there, and not run.
            make_engine_key(host, asked["owner"])
            to = same(before, asked, key_hash(host)) or stage(
                host, asked["compose"], asked["env"], asked["engine"], about
            )
        since = len(read_history(host.root, None))
        run_change(host, to.number, asked["action"], asked["by"])
        told = outcome(read_history(host.root, None)[since:], to.number)
    except Failure as failure:
        log = f"\nThe engine said last:\n{failure.log}" if failure.log else ""
        module.fail_json(msg=f"{asked['host']}: {failure}.{log}")
    except OSError as error:
        module.fail_json(msg=f"{asked['host']}: {error}")
    if told["outcome"] != "committed":
        module.fail_json(msg=f"{asked['host']}: {sentence(told, before, to)}")
    module.exit_json(changed=True, told=told, diff=diff if module._diff else [])


if __name__ == "__main__":
    main()
