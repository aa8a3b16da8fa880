"""A requested release: a new one from the plan, or an earlier one to roll back to."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional

from ..files import diff_texts
from ..json_data import Facts
from ..release_record import hash_text, is_requested
from .errors import ReleaseError
from .slots import read_source
from .store import COMPOSE_FILE, ENV_FILE, Release, ReleaseStore

_METADATA_OF_A_ROLLBACK = ("plan", "start_timeout", "drain_timeout", "swap")
_CHAT = "chat"


class ReleaseRequest(NamedTuple):
    """A requested release.

    `files`: docker-compose.yml, .env and engine.env, rendered, with tokens for slots. `metadata`,
    by the names of release.json: plan, by (the operator), start_timeout and drain_timeout
    (seconds), swap (auto, beside or one-by-one), and for a rollback as (the number of the release
    that is repeated).
    """

    files: Dict[str, str]
    metadata: Facts


def request_rollback(
    releases: ReleaseStore, operator: str, number: Optional[int] = None
) -> ReleaseRequest:
    """Return the request that repeats an earlier release: the previous one, or the one numbered.

    Raises ReleaseError where it is missing or is the current one, or where the chat API that runs
    does not know its task.
    """
    release = releases.get(number) if number else releases.previous()
    current = releases.current()
    if release is None or current is None:
        wanted = f"release {number}" if number else "the previous release"
        numbers = ", ".join(map(str, releases.list_numbers()))
        available = f"it has the releases {numbers}" if numbers else "it has no release"
        raise ReleaseError(
            f"{wanted} is missing on the host: {available}. Choose another release, or run site.yml"
        )
    if release.number == current.number:
        raise ReleaseError(
            f"release {number} is the current one already. Choose another release to roll back to"
        )
    model, running = release.record["plan"]["model"], current.record["plan"]["model"]
    task = model.get("task", _CHAT)
    if task != _CHAT and "task" not in running:
        # As `edge_fleet.plan.task.chat_api_problems` refuses a plan.
        raise ReleaseError(
            f"release {release.number} serves {model['name']}, which is for {task}, and the chat "
            f"API of the current release {current.number} is of a version that serves chat models "
            f"only. Run site.yml with llm_model {running['name']} first, which replaces the chat "
            "API"
        )
    metadata = {name: release.record[name] for name in _METADATA_OF_A_ROLLBACK}
    return ReleaseRequest(read_source(release), {**metadata, "as": release.number, "by": operator})


def is_in_place(release: Release, request: ReleaseRequest, key_hash: str) -> bool:
    """Whether a release is what is requested, and nobody has edited its files.

    `key_hash` is the hash of the engine's key as it is now.
    """
    digest = request.metadata["plan"]["model"]["digest"]
    found = {
        name: hash_text((release.folder / name).read_text(encoding="utf-8"))
        for name in request.files
    }
    return bool(
        is_requested(release.record, request.files, digest, found)
        and release.record["engine_key"] == key_hash
    )


def diff_files(release: Optional[Release], request: ReleaseRequest) -> List[Dict[str, str]]:
    """Return how the files differ from a release's, in the form that Ansible shows."""
    after = {name: request.files[name] for name in (COMPOSE_FILE, ENV_FILE)}
    return diff_texts(read_source(release) if release else {}, after)
