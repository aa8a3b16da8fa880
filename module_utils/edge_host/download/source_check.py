"""Checks whether a source has the files of a job, before anything is downloaded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Mapping, Optional

from ..constants import DOWNLOAD_PACKAGES
from ..json_data import Facts
from .http_source import check_file
from .job import BundleFile, DownloadError, add_local_path, parse_job


def read_source_info(options: Mapping[str, Any]) -> Facts:
    """Return the result of the `model_source_info` module, whose options are given."""
    try:
        job = {
            **options["job"],
            **{name: options[name] for name in ("token", "proxy")},
            "files": [add_local_path(file) for file in options["job"]["files"]],
            "folder": "",  # nothing is downloaded
        }
        problem = check_source(job, options["ca_certificates"])
    except OSError as error:
        problem = (
            f"the source could not be checked: {error}. Check the folder of llm_models_mirror, and"
            " run site.yml again"
        )
    return {"changed": False, "problem": problem}


def check_source(job: Facts, ca_certificates: str) -> Optional[str]:
    """Return why the source cannot provide the files, or None where it can.

    `ca_certificates` are certificates as text. The answer has the form of a DownloadError's text.
    """
    parsed = parse_job({**job, "ca_certificates": ca_certificates})
    if job.get("local"):
        packages = DOWNLOAD_PACKAGES.items()
        missing = [package for command, package in packages if not shutil.which(command)]
        if missing:
            return f"a package is missing on the control machine: {', '.join(missing)}. Install it"
    try:
        for file in parsed.files:
            if file.url:
                check_file(parsed, file)
            elif problem := _find_local_problem(file):
                return problem
    except DownloadError as error:
        return str(error)
    return None


def _find_local_problem(file: BundleFile) -> Optional[str]:
    """Return why a file of a folder on this machine does not fit, or None where it does."""
    path = Path(file.local)
    if not path.is_file():
        return f"{path} is missing. Copy the file into the folder of llm_models_mirror"
    size = path.stat().st_size
    if size != file.size:
        return (
            f"{path} does not fit models.yml: it has {size} bytes, and models.yml says {file.size}."
            " Replace the file, or correct the entry in models.yml"
        )
    return None
