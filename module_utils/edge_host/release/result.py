"""What a change is to do and what became of it, for the release module."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence

from ..json_data import Facts
from .errors import Failure
from .stage import sha256, source
from .store import COMPOSE, ENGINE, ENV, Host, Release


def former(host: Host, number: Optional[int] = None) -> Facts:
    """What `stage` is told to make a release again what it was: the one before, or a number's."""
    release = host.release(number) if number else host.previous()
    current = host.current()
    if release is None or current is None:
        asked = f"release {number}" if number else "the release before"
        there = ", ".join(map(str, host.numbers())) or "none"
        raise Failure(f"{asked} was asked, and is not on the host; there are: {there}")
    if release.number == current.number:
        raise Failure(f"release {number} was asked, and the host runs it")
    texts = source(release)
    kept = ("plan", "start_timeout", "drain_timeout", "swap")
    return {
        "compose": texts[COMPOSE],
        "env": texts[ENV],
        "engine": texts[ENGINE],
        "about": {**{name: release.record[name] for name in kept}, "as": release.number},
    }


def same(before: Optional[Release], asked: Facts, key: str) -> Optional[Release]:
    """The current release, where it is what is asked and nobody has written in its files.

    `key` is the hash of the engine's key as it is now.
    """
    if before is None or asked["action"] == "rollback":
        return None
    texts = {COMPOSE: asked["compose"], ENV: asked["env"], ENGINE: asked["engine"]}
    there = {name: sha256((before.folder / name).read_text(encoding="utf-8")) for name in texts}
    rendered = {name: sha256(text) for name, text in texts.items()}
    model = asked["about"]["plan"]["model"]["digest"]
    if before.record["rendered"] != rendered or before.record["written"] != there:
        return None
    if before.record["engine_key"] != key:
        return None
    return before if before.plan["model"].get("digest") == model else None


def difference(before: Optional[Release], asked: Facts) -> List[Dict[str, str]]:
    """What differs in the files, as Ansible shows it."""
    found = []
    texts = source(before) if before else {}
    for name, text in ((COMPOSE, asked["compose"]), (ENV, asked["env"])):
        old = texts.get(name, "")
        if sha256(old) != sha256(text):
            found.append(
                {"before_header": name, "after_header": name, "before": old, "after": text}
            )
    return found


def outcome(lines: Sequence[Facts], number: int) -> Facts:
    """What became of a change, by the lines that the host's history has got since it began."""
    told = [each for each in lines if each["action"] != "recover"]
    recovered = [each for each in lines if each["action"] == "recover"]
    if told and not (recovered and told[-1]["outcome"] == "failed"):
        return told[-1]
    if recovered and recovered[-1]["to"] == number:
        # Cut short behind its commit: the host went on with it.
        none: Facts = {"from": None, "parts": [], "beside": False, "pause": 0.0, "seconds": 0.0}
        return {**none, "to": number, "outcome": "committed"}
    killed = told[-1] if told else {"to": number, "reason": "the change was killed"}
    return {**killed, "outcome": "restored" if recovered else "failed"}


def sentence(told: Facts, before: Optional[Release], to: Release) -> str:
    """Why the host failed, and what it serves now; each log on lines of its own."""
    lines = [f"{to} was not kept: {told['reason']}."]
    if told.get("log"):
        lines += ["Its engine said last:", str(told["log"])]
    if told["outcome"] == "restored":
        nothing = "Nothing ran here before, and nothing runs now."
        return "\n".join([*lines, f"{before} serves again, proven." if before else nothing])
    why = told.get("restore_reason", "it was killed")
    lines.append(f"{before} could not be put back either: {why}.")
    if told.get("restore_log"):
        lines += ["Its engine said last:", str(told["restore_log"])]
    lines.append(
        "The host serves nothing: clients get status 503. On the host, `systemctl restart"
        " edge-llm` tries again to bring that release back; or repair the inventory, and run this"
        " again."
    )
    return "\n".join(lines)
