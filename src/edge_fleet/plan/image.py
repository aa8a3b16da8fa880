"""The image of a host's engine, and the registry that the host pulls it from."""

from __future__ import annotations

from typing import Any

from edge_fleet.l4t import l4t_within
from edge_fleet.plan.task import engine_tasks
from edge_fleet.text import Problem
from edge_host.constants import REGISTRY_PORT
from edge_host.image_ref import ImageRef, authority, is_pinned

# Keys of a row of the image table: rules in place of the engine's, and others.
_RULES_OF_A_ROW = ("context", "outputs", "cache_types", "repacks")
_OF_A_ROW = ("entrypoint", *_RULES_OF_A_ROW, "tasks", "command", "environment")


def choose_image(
    engine: dict[str, Any], board: dict[str, Any], l4t: dict[str, Any] | None, gpu: bool = False
) -> dict[str, Any] | None:
    """The first row of an engine's image table that fits the board, or None.

    `gpu` is whether layers are on the GPU.
    """
    host = {"gpu": gpu, "kind": board["kind"], "arch": board["arch"]}
    for row in engine["images"]:
        if any(row.get(name) not in (None, value) for name, value in host.items()):
            continue
        if row.get("l4t") and (l4t is None or not l4t_within(l4t, row["l4t"])):
            continue
        return dict(row)
    return None


def pinned(row: dict[str, Any]) -> str:
    """The reference of a row of engines.yml that has a digest."""
    return f"{row['image']}@{row['digest']}"


def through_cache(image: str, cache: str | None) -> str:
    """The reference that a host pulls an image by: of the registry on the host `cache`, if any.

    An image that is not pinned is on the host already.
    """
    if cache is None or not is_pinned(image):
        return image
    return str(ImageRef.parse(image).through_cache(registry_authority(cache)))


def registry_authority(cache: str) -> str:
    """The registry on the host `cache` as it stands in an image's reference."""
    return authority(cache, REGISTRY_PORT)


def engine_image(
    own: str | dict[str, str] | None,
    provider: str,
    engine: dict[str, Any],
    state: dict[str, Any],
    gpu: bool,
) -> tuple[dict[str, Any], list[Problem]]:
    """The image with its entrypoint and the other keys of its row: the operator's own image
    (llm_image), else that of the table.
    """
    board = state["board"]
    if isinstance(own, dict):
        own = own.get(provider)
    if own:
        if not is_pinned(own) and own not in state["deployment"]["images"]:
            return {}, [
                f"llm_image is invalid: the host does not have {own}. Use"
                f" {own.partition('@')[0]}@sha256:..., so that the pulled image can be verified."
            ]
        name = ImageRef.parse(own).name
        known = [row for row in engine["images"] if ImageRef.parse(row["image"]).name == name]
        return {"image": own, "entrypoint": known[0].get("entrypoint") if known else None}, []
    row = choose_image(engine, board, board["l4t"], gpu)
    what = board["kind"] + (f" with L4T {board['l4t']['text']}" if board["l4t"] else "")
    if row is None:
        return {}, [
            f"the engine's image is missing: engines.yml has no {provider} image for a {what} on"
            f" {board['arch']}. Set llm_image to an image (name@sha256:...)."
        ]
    if not row.get("digest"):
        return {}, [
            f"the engine's image is invalid: engines.yml has no digest for {row['image']}, the"
            f" {provider} image for a {what}. Run `make lock IMAGES={row['image']}`, or set"
            " llm_image to an image (name@sha256:...)."
        ]
    return {
        "image": pinned(row),
        **{key: row.get(key) for key in _OF_A_ROW},
    }, []


def engine_rules(engine: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    """An engine's rules, with those of its image's row in their place."""
    row = {key: image[key] for key in _RULES_OF_A_ROW if image.get(key) is not None}
    tasks = engine_tasks(engine)
    able = image.get("tasks") or tasks
    return (
        engine
        | row
        | {"tasks": {name: each for name, each in tasks.items() if name in able}}
        | {"command": [*engine["command"], *(image.get("command") or [])]}
        | {"environment": engine["environment"] | (image.get("environment") or {})}
    )
