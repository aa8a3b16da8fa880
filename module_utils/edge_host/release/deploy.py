"""Changes a host over to a release, from the arguments of the `release` module to its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, Tuple

from ..host_info.deployment import read_history
from ..json_data import Facts
from .errors import Failure
from .recovery import recover
from .result import difference, former, outcome, same, sentence
from .stage import key_hash, make_engine_key, stage
from .store import Host
from .systemd import install, remove_other_programs, run_change


def deploy(arguments: Mapping[str, Any], check: bool) -> Dict[str, Any]:
    """Return the result of the `release` module; `arguments` are its options.

    With `check` nothing is changed. Raises Failure with a message that names the host.
    """
    asked: Facts = dict(arguments)
    try:
        result, problem = _deploy(Host(asked["root"]), asked, check)
    except Failure as failure:
        log = f"\nThe engine said last:\n{failure.log}" if failure.log else ""
        raise Failure(f"{asked['host']}: {failure}.{log}") from failure
    except OSError as error:
        raise Failure(f"{asked['host']}: {error}") from error
    if problem:
        raise Failure(f"{asked['host']}: {problem}")
    return result


def _deploy(host: Host, asked: Facts, check: bool) -> Tuple[Dict[str, Any], str]:
    """(the result, why the release was not kept)."""
    before = host.current()
    if asked["action"] == "rollback":
        asked.update(former(host, asked["to"]))
    diff = difference(before, asked)
    if check:
        return {"changed": True, "diff": diff}, ""
    program = Path(asked["program"])
    install(host, program)
    with host.locked(asked["by"]):
        remove_other_programs(program)
        recover(host)
        before = host.current()
        found = before.number if before else 0
        if asked["expected"] not in (None, found):
            looked = f"release {asked['expected']}" if asked["expected"] else "nothing"
            raise Failure(
                f"the host runs {before or 'nothing'} now, and ran {looked} when it was looked"
                " at; run this again"
            )
        about = {**asked["about"], "by": asked["by"]}
        # What is asked may be there, and not run.
        make_engine_key(host, asked["owner"])
        to = same(before, asked, key_hash(host)) or stage(
            host, asked["compose"], asked["env"], asked["engine"], about
        )
    since = len(read_history(host.root, None))
    run_change(host, program, to.number, asked["action"], asked["by"])
    told = outcome(read_history(host.root, None)[since:], to.number)
    problem = "" if told["outcome"] == "committed" else sentence(told, before, to)
    return {"changed": True, "told": told, "diff": diff}, problem
