#!/usr/bin/python
"""The control_files module: files of the control machine, several at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_llm_models import write_atomically

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
  delegate_to: localhost
"""

RETURN = r"""
written:
  description: The files that have another content or mode now.
  returned: success
  type: list
  elements: str
"""


def write(file: dict[str, Any], check: bool) -> bool:
    """Have a file as asked; whether it was not."""
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


def main() -> None:
    """Write what is asked."""
    each = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str", "required": True, "no_log": False},
        "secret": {"type": "bool", "default": False, "no_log": False},
    }
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "options": each, "required": True}
        },
        supports_check_mode=True,
    )
    try:
        written = [
            str(file["path"]) for file in module.params["files"] if write(file, module.check_mode)
        ]
    except OSError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(written), written=written)


if __name__ == "__main__":
    main()
