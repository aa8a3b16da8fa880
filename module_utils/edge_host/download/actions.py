"""What the model_fetch module does, from its options to its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

from ..json_data import Facts
from .check import problem_of_source
from .job import located
from .program import runtime_folder, start, stop, wait

_OF_A_JOB = ("torrent", "user", "by", "token", "proxy")


def run_action(options: Mapping[str, Any], check: bool) -> Facts:
    """Return the result of the model_fetch module; `options` are its options.

    With `check` nothing is started, waited for or stopped. Raises Failure, OSError.
    """
    action, work, folder = options["action"], options["work"], Path(options["folder"])
    runtime = runtime_folder(folder, work["name"])
    job = {
        **work,
        **{name: options[name] for name in _OF_A_JOB},
        "files": [located(file) for file in work["files"]],
        "folder": str(folder),
        "authorities": "",
    }
    if action == "ask":
        return {"changed": False, "problem": problem_of_source(job, options["authorities"])}
    if check:
        return {"changed": False, "told": {}}
    if action == "wait":
        return {"changed": False, "told": wait(runtime, options["seconds"])}
    if action == "stop":
        return {"changed": stop(runtime)}
    if options["authorities"]:
        runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Beside and not in the folder: the downloader, another user, reads it.
        pem = runtime.with_name(f"{runtime.name}.pem")
        pem.write_text(options["authorities"], encoding="utf-8")
        job["authorities"] = str(pem)
    return {"changed": start(job, runtime, Path(options["program"]), options["unit"])}
