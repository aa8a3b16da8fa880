"""The control_files action: files of the control machine, several at once.

An action, not a module: it runs within ansible-playbook's own process there, and a module would
take a Python of its own for every host, half a second each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from edge_host.files import write_atomically

DOCUMENTATION = r"""
module: control_files
short_description: Write several small files on the control machine in one call
description:
  - Writes the files whose content or mode differs. A check run writes gathered facts alone.
  - Contents are never returned, so that secrets are not shown.
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where it is. Its folder is made.
        type: path
        required: true
      content:
        description: Its text.
        type: str
        required: true
      secret:
        description: Whether the file and its folder are for their owner alone.
        type: bool
        default: false
      gathered:
        description:
          - Whether the file holds facts that were read of a host. It is written in a check run as
            well, and is no change.
        type: bool
        default: false
author: edge-llm
"""

EXAMPLES = r"""
- name: Keep the key
  control_files:
    files:
      - {path: keys/pi.env, content: "OPENAI_API_KEY={{ key }}", secret: true}
"""

RETURN = r"""
written:
  description: >-
    The files that have another content or mode now, or in a check run would have; without gathered
    ones.
  returned: success
  type: list
  elements: str
changes:
  description: >-
    What differed, one line for each difference; lines of a file are named by what stands before
    their C(=).
  returned: success
  type: list
  elements: str
"""


FILE = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str", "required": True, "no_log": False},
    "secret": {"type": "bool", "default": False, "no_log": False},
    "gathered": {"type": "bool", "default": False},
}


def line_names(before: str, after: str) -> list[str] | None:
    """Names of the NAME=VALUE lines that differ; None where other lines differ."""
    old, new = before.splitlines(), after.splitlines()
    differing = [line for line in old if line not in new] + [
        line for line in new if line not in old
    ]
    names = {line.partition("=")[0] for line in differing}
    if not names or not all("=" in line for line in differing):
        return None
    return sorted(names)


def differences(path: Path, content: str, mode: int) -> list[str]:
    """How a file differs from what is asked, without its values; empty where it does not."""
    try:
        before, found = path.read_text(encoding="utf-8"), path.stat().st_mode & 0o777
    except FileNotFoundError:
        return ["a new file"]
    except (OSError, ValueError):
        return ["its content cannot be read"]
    said = []
    if before != content:
        names = line_names(before, content)
        said.append(f"{', '.join(names)} differs" if names else "its content differs")
    if found != mode:
        said.append(f"mode {found:04o} becomes {mode:04o}")
    return said


def bring(file: dict[str, Any], check: bool) -> list[str]:
    """Write a file that differs, outside of check runs; returns the differences. Raises OSError."""
    path, content = Path(file["path"]), str(file["content"])
    mode = 0o600 if file["secret"] else 0o644
    found = differences(path, content, mode)
    if found and (file["gathered"] or not check):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if file["secret"] else 0o755)
        write_atomically(path, content.encode(), path.parent, mode)
    return found


class ActionModule(ActionBase):  # type: ignore[misc]
    """Writes what is asked."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(
            {"files": {"type": "list", "elements": "dict", "options": FILE, "required": True}}
        )
        check = bool(self._task.check_mode)
        written, changes = [], []
        try:
            for file in asked["files"]:
                found = bring(file, check)
                if found and not file["gathered"]:
                    written.append(str(file["path"]))
                    changes += [f"{file['path']}: {each}" for each in found]
        except OSError as error:
            raise AnsibleActionFail(str(error)) from error
        return {"changed": bool(written), "written": written, "changes": changes}
