"""Checks of the project's files and folders."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from edge_fleet.audit.finding import Check, Facts, Finding, failed, listed, passed
from edge_host.constants import DEPLOYED_FILES, SECRETS, USER_IDS

OWNERS = Check("Only root and the project's users can write to the project's files")
LINKS = Check("The project's folders have no links but its own")
SECRET_FILES = Check("Secrets are readable for the project's users only")
COMPLETE = Check("All of the project's files were examined")
_LINKS = {"current", "previous", *DEPLOYED_FILES[:2], f"{SECRETS}/tls"}
_ROOTS_OWN = ("lib", "models", "releases", "engine", "current", "previous")
"""Folders whose content root runs or believes."""


def check_files(facts: Facts) -> list[Finding]:
    """Owners, modes, links and secrets below the project's folders."""
    found = [(_relative(each["path"], facts["roots"]), each) for each in facts["files"]]
    owners = [text for name, each in found if (text := _owner_problem(name, each))]
    links = [text for name, each in found if (text := _link_problem(name, each, facts["roots"]))]
    secrets = [text for name, each in found if (text := _secret_problem(name, each))]
    return [
        failed(COMPLETE, f"Reading ended after {len(found)} files.", "Remove what is not needed.")
        if not facts["all_files"]
        else passed(COMPLETE),
        failed(
            OWNERS, listed(owners),
            "Find out who changed it; then chown and chmod it, or remove it and run site.yml.",
        )
        if owners
        else passed(OWNERS),
        failed(LINKS, listed(links), "Find out who made it, and remove it.")
        if links
        else passed(LINKS),
        failed(SECRET_FILES, listed(secrets), "chmod go-rwx it, and replace the keys in it.")
        if secrets
        else passed(SECRET_FILES),
    ]  # fmt: skip


def _relative(path: str, roots: list[str]) -> str:
    """A path below the deployment's folder without it; any other path as it is."""
    return path[len(roots[0]) :].lstrip("/") if _is_below(path, roots[0]) else path


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")


def _owner_problem(name: str, file: Mapping[str, Any]) -> str:
    uid, mode = file["uid"], int(file["mode"], 8)
    if uid != 0 and (uid not in USER_IDS or _is_roots(name)):
        return f"{file['path']} belongs to the user {uid}"
    if file["kind"] in ("link", "socket"):  # a link's mode has no meaning; a folder guards sockets
        return ""
    if mode & 0o002:
        return f"{file['path']} is writable for every user ({file['mode']})"
    if mode & 0o020 and file["gid"] not in (0, *USER_IDS):
        return f"{file['path']} is writable for the group {file['gid']} ({file['mode']})"
    return ""


def _is_roots(name: str) -> bool:
    """Whether a file must be root's own."""
    if name.startswith("/"):  # the registry's, and the monitoring's
        return not any(folder in name for folder in ("/images", "/data/"))
    return name.split("/")[0] in ("", *_ROOTS_OWN, *DEPLOYED_FILES[:2])


def _link_problem(name: str, file: Mapping[str, Any], roots: list[str]) -> str:
    if file["kind"] != "link":
        return ""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(file["path"]), file["target"]))
    if name in _LINKS and any(_is_below(target, root) for root in roots):
        return ""
    return f"{file['path']} is a link to {file['target']}"


def _secret_problem(name: str, file: Mapping[str, Any]) -> str:
    if not _is_below(name, SECRETS) or file["kind"] == "link":
        return ""
    mode = int(file["mode"], 8)
    # Others may pass through a folder, to a file that is theirs.
    unwanted = 0o026 if file["kind"] == "folder" else 0o037
    if mode & unwanted or (mode & 0o040 and file["gid"] not in (0, *USER_IDS)):
        return f"{file['path']} has mode {file['mode']}"
    return ""
