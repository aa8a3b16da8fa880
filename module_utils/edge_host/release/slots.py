"""Chooses the slots of a release's parts, and fills them in for the tokens of the templates.

Two containers can exist for each part, in the slots a and b.
"""

from __future__ import annotations

import re
from typing import Collection, Dict, Mapping, Optional

from ..constants import ENGINE_PORTS
from .store import COMPOSE_FILE, ENGINE_FILE, ENV_FILE, PARTS, Release

SOURCE = "source"
"""The folder in a release that has its files as they were rendered."""
TOKENS = {"engine": "@ENGINE_SLOT@", "api": "@API_SLOT@"}
PORT_TOKEN = "@ENGINE_PORT@"  # noqa: S105 - it stands for a port
"""No name, key or address can contain these."""
# Where releases from before there were tokens have a slot, by file.
_SLOTS_WITHOUT_TOKENS = {
    COMPOSE_FILE: (
        r"(?m)^(  (?P<part>engine|api)-)[ab](?=:$)",
        r"(?m)^(    container_name: edge-llm-(?P<part>engine|api)-)[ab]$",
        r"(?m)^(      CHAT_API_SOCKET: /run/edge-llm/(?P<part>api)-)[ab](?=\.sock$)",
    ),
    ENGINE_FILE: (r"(?m)^(LLM_BASE_URL=http://(?P<part>engine)-)[ab](?=:)",),
}


def choose_slots(
    signatures: Mapping[str, str], current: Optional[Release], altered: Collection[str] = ()
) -> Dict[str, str]:
    """Return each part's slot: the current one where the part is the same, else the free one.

    A part in `altered` is not the same, whatever its signature.
    """
    if current is None:
        return dict.fromkeys(PARTS, "a")
    slots = {}
    for part in PARTS:
        slot = current.slots[part]
        same = part not in altered and signatures[part] == current.signatures[part]
        slots[part] = slot if same else {"a": "b", "b": "a"}[slot]
    return slots


def fill_slots(text: str, slots: Mapping[str, str]) -> str:
    """Return a rendered file with slots, and the engine's port, in place of their tokens."""
    for part, token in TOKENS.items():
        text = text.replace(token, slots[part])
    return text.replace(PORT_TOKEN, str(ENGINE_PORTS[slots["engine"]]))


def read_source(release: Release) -> Dict[str, str]:
    """Return a release's files by name, as they were rendered, with tokens for slots."""
    folder = release.folder / SOURCE
    names = (COMPOSE_FILE, ENV_FILE, ENGINE_FILE)
    if folder.is_dir():
        return {name: (folder / name).read_text(encoding="utf-8") for name in names}
    texts = {}
    for name in names:
        text = (release.folder / name).read_text(encoding="utf-8")
        # Only in these places: elsewhere, what looks like a slot is part of somebody's name.
        for pattern in _SLOTS_WITHOUT_TOKENS.get(name, ()):
            text = re.sub(pattern, lambda found: found[1] + TOKENS[found["part"]], text)
        texts[name] = text
    # The one line that those versions added to the rendered files, as the last.
    texts[ENV_FILE] = re.sub(r"(?m)^DOOR_IMAGE=.*\n\Z", "", texts[ENV_FILE])
    return texts
