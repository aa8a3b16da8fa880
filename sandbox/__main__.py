"""Command line of the sandbox: `python -m sandbox VERB`; `--help` lists the verbs."""

from __future__ import annotations

import argparse
import fcntl
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from sandbox import fleet, vm
from sandbox.errors import SandboxError
from sandbox.instance import HOSTS, STATE, Instance, hosts_named


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status (0 done, 1 failed, 2 usage, 130 interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="make what is not there yet, and start it")
    up.add_argument("--hosts", metavar="NAME,...", help=f"of {', '.join(HOSTS)}")
    down = verbs.add_parser("down", help="remove all that `up` made")
    down.add_argument(
        "--keep-cache", action="store_true", help="keep engine, images and downloads for next time"
    )
    verbs.add_parser("images", help="make images and models alone, and no hosts")
    verbs.add_parser("vm", help="make the disk of a virtual board, and what it needs")
    verbs.add_parser("arm64", help="make the disks of emulated boards, and what they need")
    verbs.add_parser("status", help="say what is there")
    for verb, text in (
        ("reboot", "restart a board in an orderly way"),
        ("power-cut", "take a board's power away, then give it back"),
    ):
        verbs.add_parser(verb, help=text).add_argument("host", choices=list(HOSTS))
    asked = parser.parse_args(arguments)
    # A killed `make` must not leave half a build running: SIGTERM ends as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        instance = Instance.from_environment()
        if asked.verb == "status":
            print(fleet.status(instance))
            return 0
        with _alone():
            if asked.verb == "up":
                fleet.up(instance, hosts_named(asked.hosts))
            elif asked.verb == "images":
                fleet.make_images()
            elif asked.verb == "vm":
                vm.make()
            elif asked.verb == "arm64":
                vm.make_arm64()
            elif asked.verb == "down":
                fleet.down(instance, keep_cache=asked.keep_cache)
            elif asked.verb == "reboot":
                fleet.reboot(instance, asked.host)
            else:
                fleet.power_cut(instance, asked.host)
    except (SandboxError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: type the same command again, and it goes on.", file=sys.stderr)
        return 130
    return 0


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the sandbox's lock: two runs at once would build the same things twice."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another sandbox command is running; waiting for it to end.", flush=True)
            started = time.monotonic()
            fcntl.flock(lock, fcntl.LOCK_EX)
            print(f"It ended after {time.monotonic() - started:.0f} s.", flush=True)
        yield


if __name__ == "__main__":
    sys.exit(main())
