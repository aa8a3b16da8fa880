"""Whether a run was what is to be measured: what Ansible counted of every host."""

from __future__ import annotations

from collections.abc import Collection, Mapping

Counts = Mapping[str, int]


def problems(
    counts: Mapping[str, Counts],
    hosts: Collection[str],
    *,
    changed: Collection[str] = (),
    down: Collection[str] = (),
) -> list[str]:
    """Sentences about hosts that did something else than is expected of them.

    `hosts` are all that the run was for; of these, `changed` must change, and `down` must be
    unreachable.
    """
    found = [f"{host}: the run left the host out." for host in hosts if host not in counts]
    for host, count in counts.items():
        if host not in hosts:
            found.append(f"{host}: the run was not for the host.")
            continue
        if count["failures"]:
            found.append(f"{host}: the host failed.")
        if (host in down) != bool(count["unreachable"]):
            found.append(
                f"{host}: the host was {'not ' if host in down else ''}reported as unreachable."
            )
        if (host in changed) != bool(count["changed"]):
            found.append(f"{host}: {count['changed']} tasks changed something.")
    return found
