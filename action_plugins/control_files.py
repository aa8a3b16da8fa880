"""The control_files action: files of the control machine, several at once.

An action, not a module: it runs within ansible-playbook's own process there, and a module would
take a Python of its own for every host, half a second each.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

DOCUMENTATION = r"""
module: control_files
short_description: Write several small files on the control machine in one call
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
  description: The files that have another content or mode now.
  returned: success
  type: list
  elements: str
"""


# What hosts write files by, under the name that it has there.
_package = ModuleType("edge_llm")
_package.__path__ = [str(Path(__file__).parents[1] / "module_utils")]
sys.modules.setdefault("edge_llm", _package)
write_atomically = importlib.import_module("edge_llm.edge_llm_models").write_atomically

FILE = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str", "required": True, "no_log": False},
    "secret": {"type": "bool", "default": False, "no_log": False},
}


def bring(file: dict[str, Any], check: bool) -> bool:
    """Have a file as asked; whether it was not. Raises OSError."""
    path = Path(file["path"])
    mode = 0o600 if file["secret"] else 0o644
    try:
        same = path.read_text(encoding="utf-8") == file["content"]
        same = same and path.stat().st_mode & 0o777 == mode
    except OSError:
        same = False
    if not same and not check:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if file["secret"] else 0o755)
        write_atomically(path, file["content"].encode(), path.parent, mode)
    return not same


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
        try:
            written = [str(file["path"]) for file in asked["files"] if bring(file, check)]
        except OSError as error:
            raise AnsibleActionFail(str(error)) from error
        return {"changed": bool(written), "written": written}
