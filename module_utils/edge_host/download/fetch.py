"""Starts, follows and stops a download: from the `model_fetch` module's options to its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

from ..files import write_atomically
from ..json_data import Facts
from .job import add_local_path
from .process import create_runtime_folder, runtime_folder, start, stop, wait

_JOB_OPTIONS = ("credentials", "user", "operator", "token", "proxy")
# The status file keeps its names: the program that writes it may be of another version.
_NAMES = {"how": "mode", "by": "operator", "from": "sources", "left": "seconds_left"}


def fetch_model(options: Mapping[str, Any], check_mode: bool) -> Facts:
    """Return the result of the `model_fetch` module, whose options are given.

    With `check_mode` nothing is started, waited for or stopped. Raises DownloadError, OSError.
    """
    state, job, folder = options["state"], options["job"], Path(options["folder"])
    runtime = runtime_folder(folder, job["name"])
    if check_mode:
        return {"changed": False, "download": {}}
    if state == "finished":
        return {"changed": False, "download": describe_download(wait(runtime, options["timeout"]))}
    if state == "stopped":
        return {"changed": stop(runtime)}
    ca_file = ""
    if options["ca_certificates"]:
        create_runtime_folder(runtime)
        # Beside the folder, not in it: the downloader, another user, reads it.
        pem = runtime.with_name(f"{runtime.name}.pem")
        write_atomically(pem, options["ca_certificates"].encode(), pem.parent, sync=False)
        ca_file = str(pem)
    job = {
        **job,
        **{name: options[name] for name in _JOB_OPTIONS},
        "files": [add_local_path(file) for file in job["files"]],
        "folder": str(folder),
        "ca_certificates": ca_file,
    }
    return {"changed": start(job, runtime, Path(options["program"]), options["unit"])}


def describe_download(status: Facts) -> Facts:
    """Return a download's status, as its program has written it, by the names of the result."""
    return {_NAMES.get(name, name): value for name, value in status.items()}
