"""Weights cross the outside line once, continue where they were interrupted, and trust no board."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from edge_host.download.process import runtime_folder
from tests.integration.weights.conftest import (
    BOARDS,
    BUFFER,
    HUB,
    MIB,
    SMOKE,
    SMOLLM,
    at,
    download_weights,
    ended,
    given,
    local_folder,
    on,
    shell,
    start_download,
    unfinished,
    whole,
)
from tests.playing import ROOT, message, restart
from tests.waiting import until

ALL = ",".join(BOARDS)
SLOW = f"{HUB}/faults/slow-10000000"
HALF = SMOLLM.size // 2
# Bytes that may be given twice: what was not written when a process was killed, and on its way.
TWICE = 2 * BUFFER
CACHE = ROOT / ".cache/models"


def test_the_source_is_read_once_for_the_fleet(root: str) -> None:
    """One of two boards asks the hub, a third one later asks the two, another run asks nobody."""
    before = given()
    done = download_weights("field-01,field-02", board_root=root)
    assert done.returncode == 0, done.stdout
    assert given() - before == SMOLLM.size
    said = message(done)
    assert f"field-01: {SMOLLM.bundle}: downloaded 94 MiB in" in said
    assert f"field-02: {SMOLLM.bundle}: downloaded 94 MiB in" in said
    done = download_weights(ALL, board_root=root)
    assert done.returncode == 0, done.stdout
    assert "from field-01" in message(done)
    assert all(whole(board, root) for board in BOARDS)
    done = download_weights(ALL, board_root=root)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0") == len(BOARDS)
    assert given() - before == SMOLLM.size
    # Nothing goes on giving, and nobody but root can write what is served.
    for board in BOARDS:
        assert shell(board, "ss -Hltn sport ge :6881 and sport le :6889").strip() == ""
        assert "edge-llm-fetch" not in shell(board, "systemctl list-units 'edge-llm-fetch*'")
        assert shell(board, f"stat -c '%u %a' {root}/models/{SMOLLM.file}").strip() == "0 644"


def test_the_control_machine_is_the_cache(root: str) -> None:
    """It keeps the weights: later boards download from it. No board needs access to the source."""
    subprocess.run(["rm", "-rf", CACHE], check=True)
    before = given()
    here = {"board_root": root, "llm_models_cache": "localhost"}
    done = download_weights("field-02,field-03", **here)
    assert done.returncode == 0, done.stdout
    assert given() - before == SMOLLM.size
    assert f"the control machine: {SMOLLM.bundle}: downloaded" in message(done)
    done = download_weights("field-01", **here)
    assert done.returncode == 0, done.stdout
    assert all(whole(board, root) for board in BOARDS)
    assert given() - before == SMOLLM.size


def test_a_folder_of_the_control_machine_is_a_source(root: str, tmp_path: Path) -> None:
    before = given()
    folder = local_folder(tmp_path / "usb")
    done = download_weights(ALL, board_root=root, llm_models_mirror=str(folder))
    assert done.returncode == 0, done.stdout
    assert all(whole(board, root) for board in BOARDS)
    assert given() == before


def test_downloads_that_are_killed_are_continued() -> None:
    """At the byte where they were."""
    killed_at = {f"killed-{percent}": SMOLLM.size * percent // 100 for percent in (10, 50, 99)}
    for host in killed_at:
        shell("field-02", f"rm -rf /srv/{host}")
    before = given()
    run = start_download("killed", killed_at=killed_at)
    for host, size in killed_at.items():
        at(size, "field-02", f"/srv/{host}")
        folder = Path(f"/srv/{host}/models")
        unit = f"edge-llm-fetch-{runtime_folder(folder, SMOLLM.bundle).name}"
        shell("field-02", f"systemctl kill --signal=KILL {unit}")
    said = ended(run)
    assert run.returncode == 2, said
    reason = "the download was killed. Run this again: it goes on from the part that is there"
    assert reason in " ".join(said.split())
    assert not whole("field-02", "/srv/killed-50")
    # Sources of their own again, which hold nobody who has more than a few bytes.
    done = download_weights(
        "killed", killed_at={host: n for n, host in enumerate(killed_at, start=1)}
    )
    assert done.returncode == 0, done.stdout
    for host in killed_at:
        assert whole("field-02", f"/srv/{host}")
        shell("field-02", f"rm -rf /srv/{host}")
    assert given() - before <= len(killed_at) * (SMOLLM.size + TWICE)


def test_a_running_download_is_joined(root: str) -> None:
    """The control machine goes away, and two others come at once: it is one download."""
    before = given()
    slow = {"board_root": root, "llm_models_mirror": SLOW}
    run = start_download("field-02", **slow)
    until(lambda: unfinished("field-02", root), "the first bytes", lambda received: received > MIB)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    for each in [start_download("field-02", **slow) for _ in range(2)]:
        said = ended(each)
        assert each.returncode == 0, said
    assert whole("field-02", root)
    assert given() - before == SMOLLM.size


def test_a_power_cut_of_the_fetcher(root: str) -> None:
    """What had come is there after it, and goes on."""
    before = given()
    half = f"{HUB}/faults/held-{HALF}"
    run = start_download("field-03", board_root=root, llm_models_mirror=half)
    at(HALF, "field-03", root)
    restart("power-cut", "field-03")
    said = ended(run)
    assert run.returncode, said
    done = download_weights("field-03", board_root=root, llm_models_mirror=HUB)
    assert done.returncode == 0, done.stdout
    assert whole("field-03", root)
    assert given() - before <= SMOLLM.size + TWICE


def limited(board: str, rate: str) -> None:
    """Limit what a board sends: a slow line."""
    words = f"tc qdisc replace dev eth0 root tbf rate {rate} burst 256kb latency 100ms"
    shell(board, words)


def test_a_lying_board_costs_only_time(root: str) -> None:
    """It says that it has the weights, and has something else of that size: the source has them."""
    assert download_weights("field-01", board_root=root).returncode == 0
    path = f"{root}/models/{SMOLLM.file}"
    spoil = f"printf X | dd of={path} bs=1 seek=90000000 conv=notrunc status=none"
    shell("field-01", f"cp -p {path} {root}/kept && {spoil} && touch -r {root}/kept {path}")
    before = given()
    done = download_weights("field-01,field-02", board_root=root)
    assert done.returncode == 0, done.stdout
    said = " ".join(message(done).split())
    assert f"field-02: {SMOLLM.bundle}: {SMOLLM.file} from field-01 does not fit models.yml" in said
    assert "from field-01 and 198.18.41.3" in said
    assert whole("field-02", root)
    assert given() - before == SMOLLM.size


# Connects as a neighbour would, and prints what it gets: "refused", or an answer, if any.
NEIGHBOUR = """
import socket, ssl, sys
try:
    plain = socket.create_connection((sys.argv[1], 6881), 10)
except ConnectionRefusedError:
    sys.exit("refused")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    with context.wrap_socket(plain) as encrypted:
        request = f"GET /sha256/{sys.argv[2]} HTTP/1.1\\r\\nRange: bytes=0-\\r\\n\\r\\n"
        encrypted.sendall(request.encode())
        print("answer:", encrypted.recv(100))
except OSError as error:
    print("no answer:", error)
"""


def test_a_neighbour_gets_nothing(root: str) -> None:
    """While weights are distributed a board serves the next one; afterwards its port is closed."""
    assert download_weights("field-01", board_root=root).returncode == 0
    limited("field-01", "40mbit")
    run = start_download("field-01,field-02", board_root=root)
    until(lambda: unfinished("field-02", root), "a part of it", every=0.1)
    try:
        asked = ("python3", "-c", NEIGHBOUR, "198.18.41.31", SMOLLM.sha256)
        said = on("field-03", *asked)
        received = unfinished("field-02", root)
        assert ended(run) and run.returncode == 0
    finally:
        shell("field-01", "tc qdisc del dev eth0 root")
    # The control: meanwhile the planned board was served.
    assert 0 < received < SMOLLM.size
    assert said.startswith("no answer: ")
    assert whole("field-02", root)
    assert on("field-03", *asked, check=False) == ""


def test_a_board_that_serves_may_fail(root: str) -> None:
    """Those who take from it go on with what they have, and ask the source for the rest."""
    assert download_weights("field-03", board_root=root).returncode == 0
    limited("field-03", "40mbit")
    before = given()
    run = start_download("field-02,field-03", board_root=root)
    size = f"du -sk {root}/models/.fetch 2>/dev/null | cut -f1"
    until(
        lambda: int(shell("field-02", size) or 0),
        "a part of it",
        lambda kib: kib > 20_000,
        every=0.1,
    )
    subprocess.run(["docker", "kill", "test-field-03"], check=True, stdout=subprocess.DEVNULL)
    try:
        said = ended(run)
    finally:
        subprocess.run(["docker", "start", "test-field-03"], check=True, stdout=subprocess.DEVNULL)
    assert "from field-03 and 198.18.41.3" in " ".join(said.split())
    assert whole("field-02", root)
    assert given() - before < SMOLLM.size - 10 * MIB


def test_a_fetcher_that_fails_is_replaced(root: str) -> None:
    """Where it is for reasons of its own that it cannot, another one does."""
    mount = f"mkdir -p {root}/models && mount -t tmpfs -o ro,mode=755 none {root}/models"
    shell("field-01", mount)
    try:
        before = given()
        done = download_weights("field-01,field-02", board_root=root)
        assert done.returncode == 2
        assert "Make the models folder writable" in message(done)
        assert whole("field-02", root)
        assert given() - before == SMOLLM.size
    finally:
        shell("field-01", f"umount {root}/models", check=False)


def test_a_host_that_is_the_cache_keeps_other_models(root: str) -> None:
    before = given(SMOKE)
    done = download_weights(
        "field-01,field-02", board_root=root, llm_models_cache="field-01",
        llm_model="{{ 'smoke' if inventory_hostname == 'field-02' else 'smollm2-135m' }}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert whole("field-01", root)
    assert whole("field-02", root, SMOKE)
    assert SMOKE.sha256 in shell("field-01", f"cat {root}/models/.verified.json")
    assert given(SMOKE) - before == SMOKE.size
    for cache, why in (
        ("field-03", "is not part of this run. Add that host to --limit"),
        ("nas", "is not in the inventory."),
    ):
        done = download_weights("field-02", board_root=f"{root}-2", llm_models_cache=cache)
        assert done.returncode == 2
        assert f"field-02: llm_models_cache is invalid: the host {cache} {why}" in message(done)
