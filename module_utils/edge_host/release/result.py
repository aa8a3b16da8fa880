"""The result of a change, read from the host's history, and its failure as a message."""

from __future__ import annotations

from typing import Optional, Sequence

from ..json_data import Facts
from .store import Release


def find_result(entries: Sequence[Facts], number: int) -> Facts:
    """Return the result of the change to a release, from the history's entries since it began.

    `outcome` is committed, restored (the release before serves) or failed.
    """
    changes = [each for each in entries if each["action"] != "recover"]
    recoveries = [each for each in entries if each["action"] == "recover"]
    if changes and not (recoveries and changes[-1]["outcome"] == "failed"):
        return changes[-1]
    if recoveries and recoveries[-1]["to"] == number:
        # The change was interrupted after its commit, and the recovery completed it.
        unknown: Facts = {"from": None, "parts": [], "beside": False, "pause": 0.0, "seconds": 0.0}
        return {**unknown, "to": number, "outcome": "committed"}
    reason = "the change was killed. Run this again"
    killed = changes[-1] if changes else {"to": number, "reason": reason}
    return {**killed, "outcome": "restored" if recoveries else "failed"}


def describe_failure(result: Facts, before: Optional[Release], to: Release) -> str:
    """Return why a change failed and what serves now; each log on lines of its own."""
    lines = [f"{to} failed: {result['reason']}."]
    if result.get("log"):
        lines += ["The last lines of its log:", str(result["log"])]
    if result["outcome"] == "restored":
        if before:
            return "\n".join([*lines, f"{before} serves again and was verified."])
        return "\n".join([*lines, "No release served before, and none serves now."])
    reason = result.get("restore_reason", "it was killed")
    lines.append(f"The rollback to {before} failed, too: {reason}.")
    if result.get("restore_log"):
        lines += ["The last lines of its log:", str(result["restore_log"])]
    lines.append(
        "The host serves nothing: clients get status 503. Run `systemctl restart edge-llm` on the"
        " host to try the rollback again, or correct the inventory and run this again."
    )
    return "\n".join(lines)
