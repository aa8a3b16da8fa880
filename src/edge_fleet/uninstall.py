"""What an uninstallation removes from a host, where that is not plain from its name.

Pure functions over the facts of a host and the release.json files of its releases. Whatever might
be the user's own stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edge_fleet.chat_api_bundle import IMAGE
from edge_fleet.plan.docker import INSECURE_REGISTRIES, LIVE_RESTORE
from edge_host.constants import RELOADABLE
from edge_host.image_ref import ImageRef

Releases = Sequence[Mapping[str, Any]]
_BACKUP = re.compile(r"\.(\d{4}-\d\d-\d\d@\d\d:\d\d:\d\d)~$")


def own_images(installed: Sequence[str], releases: Releases) -> list[str]:
    """Images to remove: the chat API's, and those of the releases, by digest.

    `installed` are the names that the host's Docker knows.
    """
    built = [name for name in installed if name.startswith(f"{IMAGE}:")]
    pulled = set()
    for release in releases:
        plan = release["plan"]
        pulled |= {_by_digest(plan["engine"]["image"]), _by_digest(plan["api"]["base_image"])}
    return [*built, *sorted(pulled)]


def _by_digest(text: str) -> str:
    """An image without its tag, which Docker drops from images that are pulled by digest."""
    image = ImageRef.parse(text)
    return str(image.without_tag() if image.digest else image)


def own_holds(releases: Releases) -> list[str]:
    """Packages that this project has pinned, as far as the plans of the releases say so."""
    found = {
        package
        for release in releases
        for package in _known_issues(release["plan"]).get("fixes", {}).get("hold", [])
    }
    return sorted(found)


def _known_issues(plan: Mapping[str, Any]) -> Mapping[str, Any]:
    """The known issues in a plan; releases of older versions call them traps."""
    found: Mapping[str, Any] = plan.get("known_issues") or plan.get("traps") or {}
    return found


def oldest_backup(paths: Sequence[str]) -> str:
    """The first of the backups that Ansible has made of a file; empty where there is none."""
    dated = [(match[1], path) for path in paths if (match := _BACKUP.search(path))]
    return min(dated)[1] if dated else ""


def docker_options(
    text: str, backup: str, options: Mapping[str, Any], releases: Releases
) -> dict[str, Any]:
    """What remains of Docker's configuration without the options of this project.

    Args:
        text: /etc/docker/daemon.json as it is; empty where there is no such file.
        backup: the file before this project first changed it; empty where there is no backup.
        options: board_docker_options of the inventory.
        releases: the release.json files of the host's releases.

    Returns:
        `remaining` (the options that stay), and `unknown` (names of options that the project asks
        for, and that stay because they may have been there before).
    """
    current: dict[str, Any] = json.loads(text) if text.strip() else {}
    asked = _additions(options, releases)
    if _written_by_the_role(backup or text, asked):
        before: dict[str, Any] = {}
    elif backup:
        before = json.loads(backup)
    else:
        return {"remaining": current, "unknown": sorted(set(asked) & set(current))}
    return {"remaining": _less(current, before, asked), "unknown": []}


def _written_by_the_role(text: str, asked: Mapping[str, Any]) -> bool:
    """Whether a file has nothing but options of this project, in the layout of the docker role."""
    if not text.strip():
        return True
    found = json.loads(text)
    return text == _rendered(found) and not _less(found, {}, asked)


def _rendered(options: Mapping[str, Any]) -> str:
    """As the docker role writes the file (to_nice_json)."""
    return json.dumps(options, indent=4, sort_keys=True, separators=(",", ": ")) + "\n"


def _additions(options: Mapping[str, Any], releases: Releases) -> dict[str, Any]:
    """The options that this project adds: those of the inventory, its registry, its runtime, and
    live-restore.
    """
    found = {name: value for name, value in options.items() if name in RELOADABLE}
    for release in releases:
        plan = release["plan"]
        written = plan["docker"]["daemon_json"]
        runtime = plan["gpu"]["runtime"]
        if written.get(LIVE_RESTORE) is True:
            found[LIVE_RESTORE] = True
        if runtime and runtime in written.get("runtimes", {}):
            found["runtimes"] = {runtime: written["runtimes"][runtime]}
        if plan["images"]["cache"]:
            registry = ImageRef.parse(plan["engine"]["image"]).registry
            found[INSECURE_REGISTRIES] = [*found.get(INSECURE_REGISTRIES, []), registry]
    return found


def _less(
    current: Mapping[str, Any], before: Mapping[str, Any], asked: Mapping[str, Any]
) -> dict[str, Any]:
    """`current` without what is `asked` and was not there `before`."""
    remaining = dict(current)
    for name, value in asked.items():
        if name not in current:
            continue
        found, former = current[name], before.get(name)
        if isinstance(found, list) and isinstance(value, list):
            kept: Any = [each for each in found if each not in value or each in (former or [])]
        elif isinstance(found, dict) and isinstance(value, dict):
            kept = _less(found, former or {}, value)
        else:
            kept = former if found == value else found
        if kept or (name in before and kept is not None):
            remaining[name] = kept
        else:
            del remaining[name]
    return remaining
