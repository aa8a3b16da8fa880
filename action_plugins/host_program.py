"""The host_program action: see `edge_fleet.host_archive`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from edge_fleet.host_archive import build, program_path

OPTIONS = {"folder": {"type": "path", "required": True}, "owner": {"type": "str"}}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Copies the program."""

    TRANSFERS_FILES = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(OPTIONS)
        name, content = build()
        folder = asked["folder"].rstrip("/")
        owner = {"owner": asked["owner"], "group": asked["owner"]} if asked["owner"] else {}
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch, name)
            source.write_bytes(content)
            task = self._task.copy()
            # With the slash the folder is made where it is missing.
            modes = {"mode": "0644", "directory_mode": "0755"}
            task.args = {"src": str(source), "dest": f"{folder}/", **modes, **owner}
            copied: dict[str, Any] = self._shared_loader_obj.action_loader.get(
                "ansible.legacy.copy",
                task=task,
                connection=self._connection,
                play_context=self._play_context,
                loader=self._loader,
                templar=self._templar,
                shared_loader_obj=self._shared_loader_obj,
            ).run(task_vars=task_vars)
        if copied.get("failed"):
            return copied
        return {"changed": copied["changed"], "path": program_path(folder)}
