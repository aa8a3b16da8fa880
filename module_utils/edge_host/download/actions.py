"""Runs the actions of the model_fetch module, from its options to its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

from ..json_data import Facts
from .job import add_local_path
from .process import runtime_folder, start, stop, wait
from .source_check import check_source

_JOB_OPTIONS = ("torrent", "user", "by", "token", "proxy")


def run_action(options: Mapping[str, Any], check_mode: bool) -> Facts:
    """Return the result of the model_fetch module, whose options are given.

    With `check_mode` nothing is started, waited for or stopped. Raises DownloadError, OSError.
    """
    action, work, folder = options["action"], options["work"], Path(options["folder"])
    runtime = runtime_folder(folder, work["name"])
    job = {
        **work,
        **{name: options[name] for name in _JOB_OPTIONS},
        "files": [add_local_path(file) for file in work["files"]],
        "folder": str(folder),
        "authorities": "",
    }
    if action == "ask":
        return {"changed": False, "problem": check_source(job, options["authorities"])}
    if check_mode:
        return {"changed": False, "told": {}}
    if action == "wait":
        return {"changed": False, "told": wait(runtime, options["seconds"])}
    if action == "stop":
        return {"changed": stop(runtime)}
    if options["authorities"]:
        runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Beside the folder, not in it: the downloader, another user, reads it.
        pem = runtime.with_name(f"{runtime.name}.pem")
        pem.write_text(options["authorities"], encoding="utf-8")
        job["authorities"] = str(pem)
    return {"changed": start(job, runtime, Path(options["program"]), options["unit"])}
