"""BitTorrent among hosts: the torrent, the tracker with fixed peers, and the output of aria2."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_host.download.aria2 import Aria2Output
from edge_host.download.job import DownloadJob, parse_job
from edge_host.download.torrent import PieceHasher, bencode, encode_peers, piece_length
from edge_host.download.tracker import LoopbackServer

KIB, MIB = 1024, 1024**2
PEERS = ("192.0.2.11:6881", "192.0.2.12:6882", "[2001:db8::1]:6881")


def job(sizes: dict[str, int], **changes: Any) -> DownloadJob:
    """A job of files of these sizes, by their names."""
    files = [
        {
            "name": name,
            "path": name,
            "size": size,
            "sha256": "0" * 64,
            "url": f"https://hub.example/o/m/resolve/1/{name}",
        }
        for name, size in sizes.items()
    ]
    asked = {"name": "m.gguf-1", "folder": "/models", "files": files, "mode": "peers"}
    return parse_job(asked | changes)


# --- the torrent ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        # The examples of https://www.bittorrent.org/beps/bep_0003.html
        ("spam", b"4:spam"),
        (3, b"i3e"),
        (-3, b"i-3e"),
        (0, b"i0e"),
        (["spam", "eggs"], b"l4:spam4:eggse"),
        ({"cow": "moo", "spam": "eggs"}, b"d3:cow3:moo4:spam4:eggse"),
        ({"spam": ["a", "b"]}, b"d4:spaml1:a1:bee"),
        # Keys are sorted, whatever their order was; lengths are those of bytes.
        ({"spam": 1, "cow": {"b": [], "a": {}}}, b"d3:cowd1:ade1:blee4:spami1ee"),
        ("", b"0:"),
        ("\u00fc", b"2:\xc3\xbc"),
        (b"\xff\x00", b"2:\xff\x00"),
        (2**40, b"i1099511627776e"),
    ],
)
def test_bencode(value: Any, encoded: bytes) -> None:
    assert bencode(value) == encoded


@pytest.mark.parametrize(
    ("size", "length"),
    [
        (1, 256 * KIB),
        (1000 * 256 * KIB, 256 * KIB),
        (1000 * 256 * KIB + 1, 512 * KIB),
        (1000 * 512 * KIB, 512 * KIB),
        (1000 * 512 * KIB + 1, MIB),
        (1000 * 2 * MIB, 2 * MIB),
        (1000 * 2 * MIB + 1, 4 * MIB),
        (2**40, 4 * MIB),
    ],
)
def test_piece_length(size: int, length: int) -> None:
    assert piece_length(size) == length


@given(st.integers(1, 2**44))
def test_piece_length_is_a_power_of_two_within_bounds(size: int) -> None:
    length = piece_length(size)
    assert 256 * KIB <= length <= 4 * MIB
    assert length & (length - 1) == 0
    assert size / length <= 1000 or length == 4 * MIB
    assert size / length > 500 or length == 256 * KIB


@pytest.mark.parametrize("block", [999, 64 * KIB, 256 * KIB, 256 * KIB + 1, MIB])
@pytest.mark.parametrize(
    ("sizes", "pieces"),
    [
        ({"m.gguf": 1}, 1),
        ({"m.gguf": 256 * KIB - 1}, 1),
        ({"m.gguf": 256 * KIB}, 1),
        ({"m.gguf": 256 * KIB + 1}, 2),
        ({"m.gguf": 768 * KIB}, 3),
        # A piece may have the end of one file and the beginning of the next, or all of several.
        ({"m.gguf": 300 * KIB, "mmproj.gguf": 300 * KIB}, 3),
        ({"config.json": 7, "b.json": 1, "model.safetensors": 512 * KIB - 8}, 2),
        ({"model.safetensors": 512 * KIB - 8, "a.json": 8}, 2),
    ],
    ids=str,
)
def test_pieces_are_those_of_all_files_in_a_row(
    sizes: dict[str, int], pieces: int, block: int
) -> None:
    made = PieceHasher(job(sizes))
    contents = [hashlib.shake_128(name.encode()).digest(size) for name, size in sizes.items()]
    for content in contents:
        for start in range(0, len(content), block):
            made.update(content[start : start + block])
    whole = b"".join(contents)
    hashes = [
        hashlib.sha1(whole[start : start + 256 * KIB], usedforsecurity=False).digest()
        for start in range(0, len(whole), 256 * KIB)
    ]
    assert len(hashes) == pieces
    info = {
        "name": "m.gguf-1",
        "piece length": 256 * KIB,
        "files": [{"length": size, "path": [name]} for name, size in sizes.items()],
        "pieces": b"".join(hashes),
    }
    assert made.build_torrent() == bencode({"info": info})


def test_a_torrent_can_be_built_again() -> None:
    made = PieceHasher(job({"m.gguf": 10}))
    made.update(b"")
    made.update(b"0123456789")
    assert made.build_torrent() == made.build_torrent()


# --- the tracker ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peers", "four", "six"),
    [
        ([], [], []),
        (["192.0.2.11:6881"], [("192.0.2.11", 6881)], []),
        (
            ["192.0.2.11:6881", "198.51.100.255:65535"],
            [("192.0.2.11", 6881), ("198.51.100.255", 65535)],
            [],
        ),
        (["[2001:db8::1]:6881"], [], [("2001:db8::1", 6881)]),
        # As the plan has an address and a port: without brackets.
        (["2001:db8::1:6881"], [], [("2001:db8::1", 6881)]),
        (["::1:6881"], [], [("::1", 6881)]),
        # Which interface leads there is a matter of each machine's own.
        (["[fe80::1%eth0]:6881"], [], [("fe80::1", 6881)]),
        (["fe80::1%eth0:6881"], [], [("fe80::1", 6881)]),
        (
            ["192.0.2.11:1", "2001:db8::1:2", "192.0.2.12:3"],
            [("192.0.2.11", 1), ("192.0.2.12", 3)],
            [("2001:db8::1", 2)],
        ),
    ],
)
def test_peers_are_encoded(
    peers: list[str], four: list[tuple[str, int]], six: list[tuple[str, int]]
) -> None:
    packed = {
        key: b"".join(
            ipaddress.ip_address(address).packed + port.to_bytes(2, "big") for address, port in some
        )
        for key, some in (("peers", four), ("peers6", six))
    }
    assert encode_peers(peers) == packed


ANSWER = (
    b"d8:intervali30e12:min intervali10e"
    b"5:peers12:\xc0\x00\x02\x0b\x1a\xe1\xc0\x00\x02\x0c\x1a\xe2"
    b"6:peers618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1e"
)


def get(url: str, method: str = "GET") -> tuple[int, str | None, bytes]:
    """Status, where it leads, and body; a redirect is not followed."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""))
    answer = connection.getresponse()
    found = (answer.status, answer.getheader("Location"), answer.read())
    connection.close()
    return found


def test_the_tracker_answers_every_request_with_the_peers() -> None:
    paths = [
        "/announce?info_hash=%12%34&peer_id=x&port=6881&compact=1&event=started",
        *("/announce", "/", "/elsewhere", "/source/", "/source/m.gguf-1/", "/m.gguf"),
        *("/source/m.gguf-1/other.gguf", "/source/another/m.gguf", "/source/x/../m.gguf-1/m.gguf"),
    ]
    with LoopbackServer(job({"m.gguf": 1}, peers=PEERS)) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert {path: get(server.url + path) for path in paths} == dict.fromkeys(
            paths, (200, None, ANSWER)
        )


def test_the_tracker_redirects_to_the_source() -> None:
    with LoopbackServer(job({"m.gguf": 1, "a b.json": 1})) as server:
        for name, asked in (("m.gguf", "m.gguf"), ("a b.json", "a%20b.json")):
            target = f"https://hub.example/o/m/resolve/1/{name}"
            url = f"{server.url}/source/m.gguf-1/{asked}"
            assert get(url) == (302, target, b"")
            assert get(url, "HEAD") == (302, target, b"")


def test_the_tracker_ends_with_the_download() -> None:
    with LoopbackServer(job({"m.gguf": 1})) as server:
        pass
    with pytest.raises(ConnectionRefusedError):
        get(server.url)


TOKEN = "hf_secret-token"


@pytest.fixture
def hub() -> Iterator[str]:
    """A source that leads one with the token to where the file is."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            known = self.headers["Authorization"] == f"Bearer {TOKEN}"
            self.send_response(302 if known and self.path == "/m.gguf" else 401)
            if known:
                self.send_header("Location", "/cdn/m.gguf?Signature=s")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("token", "leads_to"),
    [(TOKEN, "/cdn/m.gguf?Signature=s"), ("another", "/m.gguf"), ("", "/m.gguf")],
)
def test_the_downloader_needs_no_token(hub: str, token: str, leads_to: str) -> None:
    """It is led to where the source leads one who has the token, as long as there is one."""
    file = {"name": "m.gguf", "path": "m.gguf", "size": 1, "sha256": "0", "url": f"{hub}/m.gguf"}
    with LoopbackServer(job({}, files=[file], token=token)) as server:
        status, location, _ = get(f"{server.url}/source/m.gguf-1/m.gguf")
    assert (status, location) == (302, hub + leads_to)


def test_without_an_answer_of_the_source_its_own_address_is_used() -> None:
    url = "http://127.0.0.1:1/m.gguf"
    file = {"name": "m.gguf", "path": "m.gguf", "size": 1, "sha256": "0", "url": url}
    with LoopbackServer(job({}, files=[file], token=TOKEN)) as server:
        assert get(f"{server.url}/source/m.gguf-1/m.gguf") == (302, url, b"")


# --- the output of aria2 -------------------------------------------------------------------------


def read_output(*lines: str) -> Aria2Output:
    """What is known once a process has said the lines."""
    words = ["sh", "-c", 'printf "%s\\n" "$@"', "sh", *lines]
    before = set(threading.enumerate())
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        output = Aria2Output(process)
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
    return output


def summary(line: str) -> list[str]:
    """A line as aria2 1.36 has it once a second where its output is no terminal."""
    return [
        " *** Download Progress Summary as of Wed Nov 25 13:32:41 2026 *** ",
        "=" * 79,
        line,
        "FILE: /opt/edge-llm/models/.fetch/m.gguf-1/m.gguf",
        "-" * 79,
        "",
    ]


COMING = "[#ee525b 11386880B/67109864B(16%) CN:2 SD:1 DL:5450876B ETA:10s]"
BOTH = "[#a06f80 260505600B/268435456B(97%) CN:3 SD:1 DL:15428339B UL:7737326B(152829952B)]"
SEEDING = "[#eb82a8 SEED(0.0) CN:2 SD:0 UL:123B(152829952B)]"


@pytest.mark.parametrize(
    ("line", "done", "peers", "seeding", "active"),
    [
        (COMING, 11386880, 2, False, False),
        (BOTH, 260505600, 3, False, True),
        (SEEDING, 0, 2, True, True),
        ("[#eb82a8 SEED(0.1) CN:1 SD:0]", 0, 1, True, False),
        ("[#0e99d6 0B/1572864000B(0%) CN:0 SD:0 DL:0B]", 0, 0, False, False),
        ("[#0e99d6 0B/0B CN:0 SD:0 DL:0B]", 0, 0, False, False),
        ("[#d4db14 16384B/41943040B(0%) CN:13 SD:1 DL:16367B ETA:42m41s]", 16384, 13, False, False),
        ("[#d4db14 41943040B/41943040B(100%) CN:1 SD:1]", 41943040, 1, False, False),
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["line", "summary"])
def test_progress_is_read(
    line: str, done: int, peers: int, seeding: bool, active: bool, whole: bool
) -> None:
    output = read_output(*(summary(line) if whole else [line]))
    assert (output.bytes_done, output.peers) == (done, peers)
    assert (output.seeding, output.uploading) == (seeding, active)
    assert (output.progress, output.message) == (int(done > 0), "")


def test_an_empty_output() -> None:
    output = read_output(*summary(""))
    assert (output.bytes_done, output.peers, output.message) == (0, 0, "")
    assert not (output.seeding or output.progress or output.uploading)


def test_the_check_of_existing_data_is_progress() -> None:
    """For as long as it takes, something moves: a large file on a slow card takes minutes."""
    idle = "[#9b1522 0B/6291456000B(0%) CN:0 SD:0 DL:0B]"
    lines = [f"{idle} [Checksum:#9b1522 {n}B/6291456000B(1%)]" for n in (1, 2, 2, 3)]
    output = read_output(*(each for line in lines for each in (line, *summary(idle))))
    assert (output.progress, output.bytes_done, output.message) == (3, 0, "")


def test_a_download_that_ends_in_seeding() -> None:
    output = read_output(*summary(COMING), COMING, *summary(BOTH), *summary(SEEDING))
    assert output.seeding
    assert output.bytes_done == 260505600
    assert output.peers == 2


@pytest.mark.parametrize(
    ("totals", "active"),
    [
        ([None], False),
        ([16384], True),
        ([16384, 16384], False),
        ([16384, 20480], True),
        ([16384, 20480, 20480], False),
        # Nobody takes anything just now.
        ([16384, None, None], False),
    ],
)
def test_uploads_are_noticed(totals: list[int | None], active: bool) -> None:
    lines = [
        "[#eb82a8 SEED(0.0) CN:1 SD:0" + (f" UL:9B({total}B)]" if total else "]")
        for total in totals
    ]
    assert read_output(*lines).uploading is active
    # Whatever is said in between.
    assert read_output(*(each for line in lines for each in summary(line))).uploading is active


@pytest.mark.parametrize(
    "words",
    [
        "errorCode=1 Failed to bind a socket, cause: Address already in use",
        "11/25 13:32:40 [ERROR] Failed to open /opt/x.torrent",
        "Exception: [AbstractDiskWriter.cc:459] errNum=28 errorCode=9 No space left on device",
    ],
)
def test_messages_are_kept(words: str) -> None:
    assert read_output(*summary(COMING), f"  {words} ", *summary(BOTH)).message == words
    assert read_output("earlier", words).message == words


def test_a_message_that_is_no_utf_8() -> None:
    assert read_output("a\udcffb").message == "a\ufffdb"  # the byte 0xff, as arguments have it
