"""`make bench`, second part: how long clients wait when a host changes, beyond the engine's load.

A simulated board (the tests' own) changes the context of the smoke model on llama.cpp to and fro,
with both engines loaded for a moment and with one after the other, while eight clients ask.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.integration.load import FOLDER, HOST, Board, board_named, loaded
from tests.playing import ROOT, play

ROUNDS = 4
SMOKE = {"llm_provider": "llamacpp", "llm_model": "smoke"}


def started(board: Board) -> float:
    """Seconds that a container of the engine takes from its start to readiness, with nothing else.

    What a swap of one engine after the other cannot do without: measured on the engine that runs,
    started again by Docker.
    """
    name = f"edge-llm-engine-{board.current()['slots']['engine']}"
    script = (
        "import subprocess, sys, time, urllib.request\n"
        "subprocess.run(['docker', 'stop', sys.argv[1]], check=True, capture_output=True)\n"
        "key = open('/opt/edge-llm/secrets/engine_key').read().strip()\n"
        "health = urllib.request.Request('http://127.0.0.1:11434/health')\n"
        "health.add_header('Authorization', f'Bearer {key}')\n"
        "begun = time.monotonic()\n"
        "subprocess.run(['docker', 'start', sys.argv[1]], check=True, capture_output=True)\n"
        "while True:\n"
        "    try:\n"
        "        urllib.request.urlopen(health, timeout=5)\n"
        "        break\n"
        "    except OSError:\n"
        "        time.sleep(0.01)\n"
        "print(time.monotonic() - begun)\n"
    )
    return float(board.run("python3", "-c", script, name))


def change(board: Board, **given: Any) -> dict[str, Any]:
    """Run site.yml, which changes the board; what became of it, with the run's own seconds."""
    before, begun = len(board.history()), time.monotonic()
    done = play("site.yml", HOST, **SMOKE, **given)
    if done.returncode != 0:
        raise SystemExit(done.stdout)
    (told,) = board.history()[before:]
    return {**told, "run": time.monotonic() - begun}


def main() -> int:
    """Measure and print; returns 1 if a request failed."""
    console = Console()
    subprocess.run(
        [sys.executable, "-m", "sandbox", "up", "--hosts", HOST],
        cwd=ROOT, env=os.environ | {"SANDBOX": "test"}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    first = play("site.yml", HOST, **SMOKE)
    if first.returncode != 0:
        console.print(first.stdout)
        return 1
    board = board_named(HOST)
    table = Table(title=f"A change of {HOST}'s engine under eight clients, {ROUNDS} times each way")
    for name in (
        "way",
        "failed",
        "requests",
        "load",
        "pause",
        "beyond the load",
        "change",
        "site.yml",
    ):
        table.add_column(name, justify="left" if name == "way" else "right")
    failed = 0
    for swap in ("beside", "one-by-one"):
        with loaded(board) as load:
            told = [
                change(board, llm_context_size=(2048, 4096)[n % 2], stack_swap=swap)
                for n in range(ROUNDS)
            ]
        loading = 0.0 if swap == "beside" else started(board)
        pause = max(each["pause"] for each in told)
        failed += len(load.wrong)
        table.add_row(
            swap,
            str(len(load.wrong)),
            str(len(load.times)),
            f"{loading:.2f} s" if loading else "before it",
            f"{pause:.2f} s",
            f"{pause - loading:.2f} s",
            f"{max(each['seconds'] for each in told):.1f} s",
            f"{max(each['run'] for each in told):.1f} s",
        )
        for wrong in load.wrong:
            console.print(wrong)
    console.print(table)
    console.print(
        f"The longest of each; every change is in {HOST}:{FOLDER}/releases/history.jsonl."
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
