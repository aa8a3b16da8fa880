"""Jobs of hosts that download from each other and from a source, with the real programs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge_host import disk
from edge_host.download import runner
from edge_host.download.job import STATUS, DownloadError, parse_job
from edge_host.download.peer_client import Timing
from edge_host.download.session import DownloadSession, Stopped
from tests.unit.edge_host.peers import QUICK, credentials
from tests.waiting import until

CONTENT = bytes(range(256)) * 8192  # two MiB
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WRONG = b"x" * SIZE
WRONG_SHA256 = hashlib.sha256(WRONG).hexdigest()


class Source:
    """A source of one file: `content`; it holds back what is after byte `hold` until `gate` opens.

    `chunked`: it sends bytes without an end instead; `asked` has the first byte of each request.
    """

    def __init__(self) -> None:
        self.content = CONTENT
        self.chunked = False
        self.gate = threading.Event()
        self.gate.set()
        self.hold = 0
        self.asked: list[int] = []
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.send_response(200)
                if not source.chunked:
                    self.send_header("Content-Length", str(len(source.content)))
                self.end_headers()

            def do_GET(self) -> None:
                wanted = self.headers.get("Range", "bytes=0-")
                start = int(wanted.split("=")[1].split("-")[0])
                source.asked.append(start)
                body = source.content[start:]
                if source.chunked:
                    self._endless()
                    return
                self.send_response(206 if "Range" in self.headers else 200)
                self.send_header("Content-Length", str(len(body)))
                total = len(source.content)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
                self.end_headers()
                first = max(0, source.hold - start)
                self.wfile.write(body[:first])
                self.wfile.flush()
                source.gate.wait(60)
                self.wfile.write(body[first:])

            def _endless(self) -> None:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                block = b"10000\r\n" + bytes(0x10000) + b"\r\n"
                while True:
                    self.wfile.write(block)

            def log_message(self, *_: Any) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # a client that has left
                    super().handle()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/m.gguf"
        self.name = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    yield made
    made.stop()


class Machine:
    """A host with a job that runs in a thread."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        self.models, self._runtime = folder / "models", folder / "run"
        for each in (self.models, self._runtime):
            each.mkdir(parents=True, exist_ok=True)
        self.session = DownloadSession(
            parse_job({**job, "folder": str(self.models)}), self._runtime
        )
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            runner.run_job(self.session)
        except (DownloadError, OSError, Stopped) as error:
            self.failure = error

    def start(self) -> Machine:
        self._thread.start()
        return self

    def status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._runtime / STATUS).read_text())
        except FileNotFoundError:
            return {"state": "none"}
        return found

    def done(self) -> dict[str, Any]:
        return until(
            lambda: self.status() if not self.failure else pytest.fail(str(self.failure)),
            "the end of the download",
            lambda status: status["state"] == "done",
            seconds=60,
            every=0.02,
        )

    def failed(self) -> str:
        self._thread.join(60)
        assert isinstance(self.failure, DownloadError), self.status()
        return str(self.failure)

    def stop(self) -> None:
        self.session.stop()
        if self._thread.ident:
            self._thread.join(60)
        assert not self._thread.is_alive()

    def unfinished(self) -> int:
        path = self.models / ".fetch/m-1/m.gguf"
        return path.stat().st_size if path.exists() else 0

    @property
    def content(self) -> bytes | None:
        path = self.models / "m.gguf"
        return path.read_bytes() if path.exists() else None


class Fleet:
    """Hosts of one distribution: host 0 first, each with the two before it as predecessors."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._made = credentials(count)
        with contextlib.ExitStack() as used:
            free = [used.enter_context(socket.create_server(("", 0))) for _ in range(count)]
            self._ports = [int(each.getsockname()[1]) for each in free]
        self.machines: list[Machine] = []

    def host(self, number: int, url: str = "", mode: str = "", **more: Any) -> Machine:
        before = [each for each in (number - 1, number - 2) if each >= 0]
        after = [each for each in (number + 1, number + 2) if each < self._count]
        file = {"name": "m.gguf", "path": "m.gguf", "size": SIZE, "sha256": SHA256, "url": url}
        job = {
            **{"name": "m-1", "files": [file]},
            "mode": mode or ("peers" if before else "source"),
            "predecessors": [
                {
                    **{"name": f"board-{each}", "address": "127.0.0.1"},
                    **{"port": self._ports[each], "identity": f"host-{each}"},
                }
                for each in before
            ],
            "successors": [f"host-{each}" for each in after],
            "port": self._ports[number],
            "credentials": self._made[f"host-{number}"],
        }
        machine = Machine(self._folder / f"board-{number}", job | more)
        self.machines.append(machine)
        return machine

    def share(self, number: int, content: bytes) -> Machine:
        machine = self.host(number, mode="share")
        (machine.models / "m.gguf").write_bytes(content)
        return machine.start()

    def stop(self) -> None:
        for machine in self.machines:
            machine.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short: those who do not answer are given up soon."""
    timing = QUICK._replace(first_contact=3.0)._asdict()
    monkeypatch.setattr(runner, "download_from_peers", _with_timing(timing))


def _with_timing(timing: dict[str, Any]) -> Any:
    from edge_host.download import peers

    return lambda session, incoming: peers.download_from_peers(session, incoming, Timing(**timing))


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setattr(disk, "DISK_RESERVE", 0)
    made = Fleet(tmp_path, 4)
    yield made
    made.stop()


def test_a_file_passes_through_all_hosts_while_it_arrives(fleet: Fleet, source: Source) -> None:
    """The last one has half of it while the source still holds back the rest; it is read once."""
    source.hold = SIZE // 2
    source.gate.clear()
    hosts = [fleet.host(number, source.url).start() for number in reversed(range(4))]
    until(
        lambda: [each.unfinished() for each in hosts],
        "half of the file on every host",
        lambda sizes: all(size == SIZE // 2 for size in sizes),
        seconds=60,
        every=0.05,
    )
    assert [each.content for each in hosts] == [None] * 4
    source.gate.set()
    statuses = [each.done() for each in hosts]
    assert [each.content for each in hosts] == [CONTENT] * 4
    assert source.asked == [0]
    # The nearest one, or at a moment without bytes the one before that.
    assert statuses[-1]["from"] == [source.name]
    assert all(set(each["from"]) <= {"board-0", "board-1", "board-2"} for each in statuses[:-1])
    # No trace of what they needed for that is left.
    for host in hosts:
        assert sorted(path.name for path in host.models.iterdir()) == [
            *(".fetch", ".verified.json", ".verified.json.lock", "m.gguf"),
        ]
        assert list((host.models / ".fetch").iterdir()) == []


def test_who_has_it_shares_it(fleet: Fleet) -> None:
    first = fleet.share(0, CONTENT)
    first.done()
    second = fleet.host(1).start()
    assert second.done()["from"] == ["board-0"]
    assert second.content == CONTENT
    # Once it is told to stop, it serves nobody any more.
    first.stop()
    assert first.failure is None


def test_who_is_to_share_what_it_has_not(fleet: Fleet) -> None:
    machine = fleet.host(0, mode="share").start()
    assert machine.failed() == (
        f"{machine.models}/m.gguf is missing: other hosts were to download it from here. Run"
        " site.yml again"
    )


def test_a_lying_host_costs_only_time(fleet: Fleet, source: Source) -> None:
    """Each finds the wrong content, says from whom it was, and gets all of it from the source."""
    fleet.share(0, WRONG)
    second = fleet.host(1, source.url).start()
    status = second.done()
    assert status["from"] == ["board-0", source.name]
    assert status["notice"] == (
        f"m.gguf from board-0 does not fit models.yml: it has sha256 {WRONG_SHA256}, and models.yml"
        f" says {SHA256}. It is downloaded once more, from the source"
    )
    assert second.content == CONTENT
    assert source.asked == [0]
    assert not list(second.models.glob("*.rejected"))


def test_a_lying_host_where_the_source_is_not_allowed(fleet: Fleet) -> None:
    fleet.share(0, WRONG)
    second = fleet.host(1).start()
    assert second.failed() == (
        f"m.gguf from board-0 does not fit models.yml: it has sha256 {WRONG_SHA256}, and models.yml"
        f" says {SHA256}. Run site.yml again, which uses another source"
    )
    assert (second.content, second.unfinished()) == (None, 0)


def test_a_lying_host_and_a_lying_source(fleet: Fleet, source: Source) -> None:
    source.content = b"y" * SIZE
    fleet.share(0, WRONG)
    second = fleet.host(1, source.url).start()
    said = second.failed()
    assert said.startswith(
        f"m.gguf from board-0 does not fit models.yml: it has sha256 {WRONG_SHA256}, and models.yml"
        f" says {SHA256}; and m.gguf does not fit models.yml: the downloaded file has sha256"
    )
    assert "It was kept as m.gguf.rejected" in said
    assert second.content is None
    assert source.asked == [0]


def test_a_lying_host_and_a_source_that_does_not_answer(fleet: Fleet, source: Source) -> None:
    fleet.share(0, WRONG)
    source.stop()
    said = fleet.host(1, source.url).start().failed()
    assert said.startswith("m.gguf from board-0 does not fit models.yml: ")
    assert f"; and {source.url} is not reachable: [Errno 111]" in said


@pytest.mark.usefixtures("quick")
def test_hosts_that_do_not_answer_are_replaced_by_the_source(fleet: Fleet, source: Source) -> None:
    third = fleet.host(2, source.url).start()
    assert third.done()["from"] == [source.name]
    assert third.content == CONTENT


@pytest.mark.usefixtures("quick")
def test_hosts_that_do_not_answer_where_the_source_is_not_allowed(fleet: Fleet) -> None:
    assert fleet.host(2).start().failed() == (
        "m.gguf is incomplete: board-1 did not answer (Connection refused); board-0 did not answer"
        " (Connection refused). Open llm_models_port between the hosts, and run site.yml again,"
        " which continues the download"
    )


@pytest.mark.usefixtures("quick")
def test_hosts_and_source_that_do_not_answer(fleet: Fleet, source: Source) -> None:
    source.stop()
    said = fleet.host(1, source.url).start().failed()
    assert said.startswith(
        "m.gguf is incomplete: board-0 did not answer (Connection refused); and"
        f" {source.url} is not reachable: [Errno 111]"
    )


@pytest.mark.usefixtures("quick")
def test_what_came_from_hosts_is_continued_from_the_source(fleet: Fleet, source: Source) -> None:
    """The one before has half of the file, and its own download has ended."""
    source.hold = SIZE // 2
    source.gate.clear()
    first = fleet.host(0, source.url).start()
    until(first.unfinished, "half of the file", lambda size: size == SIZE // 2, seconds=60)
    second = fleet.host(1, source.url).start()
    until(second.unfinished, "half of the file", lambda size: size == SIZE // 2, seconds=60)
    first.stop()
    assert isinstance(first.failure, Stopped)
    assert first.unfinished() == SIZE // 2
    source.gate.set()
    assert second.done()["from"] == ["board-0", source.name]
    assert second.content == CONTENT
    assert source.asked == [0, SIZE // 2]


def test_an_interrupted_download_is_continued_from_hosts(fleet: Fleet) -> None:
    """What an earlier run has left is hashed with the rest in the end."""
    fleet.share(0, CONTENT)
    second = fleet.host(1)
    unfinished = second.models / ".fetch/m-1"
    unfinished.mkdir(parents=True)
    (unfinished / "m.gguf").write_bytes(CONTENT[: SIZE // 3])
    second.start().done()
    assert second.content == CONTENT


def test_an_interrupted_download_that_was_wrong(fleet: Fleet, source: Source) -> None:
    """Whoever sent it in the earlier run: all of it is fetched once more."""
    fleet.share(0, CONTENT)
    second = fleet.host(1, source.url)
    unfinished = second.models / ".fetch/m-1"
    unfinished.mkdir(parents=True)
    (unfinished / "m.gguf").write_bytes(WRONG[: SIZE // 3])
    second.start().done()
    assert second.content == CONTENT
    assert source.asked == [0]


def test_more_than_the_file_has_is_dropped(fleet: Fleet) -> None:
    fleet.share(0, CONTENT)
    second = fleet.host(1)
    unfinished = second.models / ".fetch/m-1"
    unfinished.mkdir(parents=True)
    (unfinished / "m.gguf").write_bytes(CONTENT + b"x")
    second.start().done()
    assert second.content == CONTENT


def test_an_endless_source_writes_no_more_than_the_file_has(fleet: Fleet, source: Source) -> None:
    """It does not say how much it sends, and curl does not count that before its version 8.4."""
    source.chunked = True
    machine = fleet.host(0, source.url)
    most = 0
    written = os.write

    def watched(descriptor: int, block: Any) -> int:
        nonlocal most
        done = written(descriptor, block)
        most = max(most, machine.unfinished())
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge_host.download.incoming.os.write", watched)
        said = machine.start().failed()
    assert said == (
        f"{source.url} does not fit models.yml: the source sends more than the {SIZE} bytes of"
        " models.yml. Correct the entry in models.yml, or set llm_models_mirror to a source that"
        " has the file"
    )
    assert 0 < most <= SIZE
    assert (machine.unfinished(), machine.content) == (0, None)


def test_a_port_in_use_is_no_reason_to_fail(fleet: Fleet, source: Source) -> None:
    first = fleet.share(0, CONTENT)
    first.done()
    other = fleet.host(1, source.url, mode="source", predecessors=[], port=first.session.job.port)
    status = other.start().done()
    assert other.content == CONTENT
    assert status["notice"].startswith(
        f"other hosts cannot download from this one: port {first.session.job.port} cannot be used"
    )


def test_a_server_that_does_not_start_is_no_reason_to_fail(
    fleet: Fleet, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has ended before it could read what it is to serve."""
    machine = fleet.host(0, source.url)
    start = DownloadSession.start_downloader

    def ending(session: DownloadSession, *command: str, **streams: Any) -> Any:
        if not command[-1].endswith(".peer_server"):
            return start(session, *command, **streams)
        process = start(session, "true", **streams)
        process.wait()
        return process

    monkeypatch.setattr(DownloadSession, "start_downloader", ending)
    status = machine.start().done()
    machine.stop()
    assert (machine.content, machine.failure) == (CONTENT, None)
    assert status["notice"] == (
        "other hosts cannot download from this one: the server did not start"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts programs of other users")
def test_programs_that_talk_to_others_have_no_privileges(
    monkeypatch: pytest.MonkeyPatch, source: Source
) -> None:
    """They can read what they serve, and write nothing."""
    monkeypatch.setattr(disk, "DISK_RESERVE", 0)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        fleet = Fleet(Path(folder), 2)
        source.hold = SIZE // 2
        source.gate.clear()
        hosts = [fleet.host(number, source.url, user=12345).start() for number in (0, 1)]
        for host in hosts:
            until(host.unfinished, "half of the file", lambda size: size == SIZE // 2, seconds=60)
        started = [process for host in hosts for process in host.session._processes]
        for process in started:
            status = Path(f"/proc/{process.pid}/status").read_text()
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            assert fields["Uid"].split() == fields["Gid"].split() == ["12345"] * 4
            assert (fields["Groups"].strip(), fields["NoNewPrivs"]) == ("", "1")
            assert int(fields["CapEff"], 16) == 0
        # curl and a server; a client of the first host (and a server, if any host came after it).
        assert len(started) == 3
        source.gate.set()
        for host in hosts:
            host.done()
            assert host.content == CONTENT
            assert (host.models / "m.gguf").stat().st_uid == 0
        fleet.stop()


# --- folders -------------------------------------------------------------------------------------


def test_a_link_in_place_of_a_folder_is_not_followed(
    tmp_path: Path, fleet: Fleet, source: Source
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "m.gguf").write_bytes(b"mine")
    machine = fleet.host(0, source.url)
    (machine.models / ".fetch").mkdir()
    (machine.models / ".fetch/m-1").symlink_to(elsewhere)
    machine.start().done()
    assert machine.content == CONTENT
    assert (elsewhere / "m.gguf").read_bytes() == b"mine"


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_link_in_place_of_a_file_is_not_written_to(
    tmp_path: Path, fleet: Fleet, source: Source, kind: str
) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    machine = fleet.host(0, source.url)
    unfinished = machine.models / ".fetch/m-1/m.gguf"
    unfinished.parent.mkdir(parents=True)
    if kind == "link":
        unfinished.symlink_to(mine)
    elif kind == "hard link":
        unfinished.hardlink_to(mine)
    else:
        os.mkfifo(unfinished)
    with pytest.raises((DownloadError, OSError)):
        runner.run_job(machine.session)
    assert mine.read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_of_another_user_is_replaced(tmp_path: Path, fleet: Fleet, source: Source) -> None:
    """As earlier versions have left it: its owner could put links into it at any moment."""
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    machine = fleet.host(0, source.url)
    staging = machine.models / ".fetch"
    (staging / "m-1").mkdir(parents=True)
    (staging / "m-1/m.gguf").symlink_to(mine)
    for each in (staging, staging / "m-1"):
        os.chown(each, 12345, 12345)
    machine.start().done()
    assert mine.read_bytes() == b"mine"
    assert (staging.stat().st_uid, staging.stat().st_mode & 0o777) == (0, 0o755)


@pytest.mark.parametrize("suffix", [".aria2", ".torrent"])
def test_what_bittorrent_has_left_is_removed(fleet: Fleet, source: Source, suffix: str) -> None:
    """Such a file has its whole size, and holes."""
    machine = fleet.host(0, source.url)
    staging = machine.models / ".fetch"
    (staging / "m-1").mkdir(parents=True)
    (staging / "m-1/m.gguf").write_bytes(bytes(SIZE))
    (staging / f"m-1{suffix}").touch()
    machine.start().done()
    assert machine.content == CONTENT
    assert list(staging.iterdir()) == []
