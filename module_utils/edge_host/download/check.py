"""Whether a source has what is to be downloaded, before anything is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Optional

from ..constants import DOWNLOAD_PACKAGES
from ..json_data import Facts
from .http_source import ask
from .job import Failure, parse_job


def problem_of_source(job: Facts, authorities: str) -> Optional[str]:
    """Why the source cannot give the files; None where it can."""
    parsed = parse_job({**job, "authorities": authorities})
    if job.get("local"):
        lacking = [package for name, package in DOWNLOAD_PACKAGES.items() if not shutil.which(name)]
        if lacking:
            return f"the control machine has no {' and no '.join(lacking)}; install it there"
    try:
        for file in parsed.files:
            if file.url:
                ask(parsed, file)
            elif not Path(file.local).is_file():
                return f"{file.local} is not there"
            elif Path(file.local).stat().st_size != file.size:
                return (
                    f"{file.local} has {Path(file.local).stat().st_size} bytes, and models.yml says"
                    f" {file.size}"
                )
    except Failure as failure:
        return str(failure)
    return None
