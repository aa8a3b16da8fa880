"""The source of weights: its check, curl, and the installation of downloads."""

from __future__ import annotations

import errno
import hashlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge_host import commands, disk
from edge_host.commands import SEARCH_PATH
from edge_host.download.http_download import parse_curl_output
from edge_host.download.http_source import (
    CurlResult,
    build_curl_config,
    check_file,
    check_response,
    find_permanent_problem,
)
from edge_host.download.incoming import IncomingFile
from edge_host.download.installation import install_files
from edge_host.download.job import BundleFile, DownloadError, DownloadJob, parse_job
from edge_host.download.runner import run_job
from edge_host.download.session import DownloadSession
from edge_host.download.source_check import check_source

SHA256, OTHER, SHA1 = "a" * 64, "b" * 64, "c" * 40
URL = "https://hub.example/o/m/resolve/1/m.gguf"
PLAIN_URL = "http://hub.example/o/m/resolve/1/m.gguf"
TOKEN = "hf_secret-token-of-a-person"
# Parts of the messages.
ANSWERED = "the source answered with status"
ANOTHER_FILE = (
    "Correct the entry in models.yml, or set llm_models_mirror to a source that has the file"
)
CA = "Set llm_models_ca to a file with the certificates of its authority"
AGAIN = "Check the source, and run site.yml again"
CONTENT = b"GGUF weights of a model"
CONTENT_SHA256 = hashlib.sha256(CONTENT).hexdigest()


def job(folder: str | Path = "/models", url: str = URL, **changes: Any) -> DownloadJob:
    """A job of one file, m.gguf, of 100 bytes."""
    file = {"name": "m.gguf", "path": "m.gguf", "size": 100, "sha256": SHA256, "url": url}
    asked = {"name": "m.gguf-1", "folder": str(folder), "files": [file], "mode": "source"}
    return parse_job(asked | changes)


def judged(status: int, headers: dict[str, str] | None = None, **changes: Any) -> str:
    """The sentence with which an answer is refused; empty where it is not."""
    asked = job(**changes)
    try:
        check_response(asked, asked.files[0], status, headers or {})
    except DownloadError as failure:
        return str(failure)
    return ""


# --- a job ---------------------------------------------------------------------------------------


def test_a_job_with_required_fields_only() -> None:
    assert job() == DownloadJob(
        name="m.gguf-1",
        folder=Path("/models"),
        files=(BundleFile("m.gguf", "m.gguf", 100, SHA256, URL, "", {}, "m.gguf-1"),),
        mode="source",
        predecessors=(),
        successors=(),
        port=0,
        credentials=None,
        distribution=0.0,
        started_between=0,
        user=None,
        operator="somebody",
        token="",
        proxy="",
        ca_certificates="",
    )


def test_a_job_with_all_fields_from_json() -> None:
    file = {
        "name": "config.json",
        "path": "m.hf/config.json",
        # Templates of Ansible may have made a number text.
        "size": "12",
        "sha256": SHA256,
        "url": None,
        "local": "/media/usb/config.json",
        "header": {"family": "llama"},
        "place": "o/m/resolve/1/config.json",
    }
    asked = {
        "name": "m.hf-1",
        "folder": "/opt/models",
        "files": [file, file | {"name": "b", "size": 30}],
        "mode": "peers",
        "predecessors": [
            {"name": "a", "address": "192.0.2.11", "port": "6881", "identity": "host-0"}
        ],
        "successors": ["host-2"],
        "port": "6882",
        "started_between": "3",
        "credentials": {
            **{"authority": "A", "certificate": "C", "key": "K"},
            "planned_at": 1796000000.5,
        },
        "user": 10010,
        "operator": "alice@laptop",
        "token": TOKEN,
        "proxy": "http://proxy.example:3128",
        "ca_certificates": "/run/x.pem",
    }
    parsed = parse_job(json.loads(json.dumps(asked)))
    assert parsed.files[0] == BundleFile(
        *("config.json", "m.hf/config.json", 12, SHA256, ""),
        *("/media/usb/config.json", {"family": "llama"}, "m.hf-1"),
    )
    assert parsed.files[0].weights == ("m.hf/config.json", 12, SHA256, "m.hf-1")
    assert parsed[3:] == (
        *("peers", (("a", "192.0.2.11", 6881, "host-0"),), ("host-2",), 6882, ("A", "C", "K")),
        *(1796000000.5, 3, 10010, "alice@laptop", TOKEN),
        *("http://proxy.example:3128", "/run/x.pem"),
    )
    assert parsed.size == 42
    assert parsed.staging_folder == Path("/opt/models/.fetch")
    assert parsed.bundle_folder == Path("/opt/models/.fetch/m.hf-1")


@pytest.mark.parametrize(
    "name",
    [
        *("predecessors", "successors", "port", "credentials", "operator", "token", "proxy"),
        "ca_certificates",
    ],
)
def test_null_is_the_default(name: str) -> None:
    nothing: dict[str, Any] = {name: None}
    assert job(**nothing) == job()


# --- answers of a source -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 301, 302, 303, 307, 308])
def test_statuses_of_a_file_pass(status: int) -> None:
    """An answer without size and hash passes, until the download."""
    assert judged(status) == ""


@pytest.mark.parametrize(
    "status", [100, 201, 204, 206, 300, 304, 400, 402, 404, 405, 407, 410, 416, 451]
)
def test_statuses_without_a_file(status: int) -> None:
    state = "missing" if status in (404, 410) else "not available"
    assert judged(status) == f"{URL} is {state}: {ANSWERED} {status}. {ANOTHER_FILE}"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_transient_statuses(status: int) -> None:
    assert judged(status) == (
        f"{URL} is not available: {ANSWERED} {status}. Run site.yml again later, or set"
        " llm_models_mirror to another source"
    )


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("token", "how"),
    [
        ("", ", as it requires a token. Set llm_models_token"),
        (
            TOKEN,
            " to the token of llm_models_token. Accept the model's terms with the account of this"
            " token, or set another token",
        ),
    ],
)
def test_statuses_that_require_a_token(status: int, token: str, how: str) -> None:
    assert judged(status, token=token) == f"{URL} is not accessible: {ANSWERED} {status}{how}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("url", "location", "led_to"),
    [
        (URL, "https://cdn.example/x?Signature=s", None),
        (URL, "/api/resolve-cache/x", None),
        (URL, "x", None),
        (URL, "//cdn.example/x", None),
        (URL, "HTTPS://cdn.example/x", None),
        # A signed address is not repeated.
        (URL, "http://cdn.example/x?Signature=s", "http://cdn.example/x"),
        (URL, "ftp://cdn.example/x", "ftp://cdn.example/x"),
        (URL, "httpsx://cdn.example/x", "httpsx://cdn.example/x"),
        (PLAIN_URL, "http://cdn.example/x", None),
        (PLAIN_URL, "https://cdn.example/x", None),
        (PLAIN_URL, "/x", None),
    ],
)
def test_https_is_not_left_for_http(
    status: int, url: str, location: str, led_to: str | None
) -> None:
    expected = (
        f"{url} is invalid: it redirects to {led_to}, which is not encrypted. Set llm_models_mirror"
        " to a source that stays on https"
        if led_to
        else ""
    )
    assert judged(status, {"location": location}, url=url) == expected


@pytest.mark.parametrize(
    ("status", "kind", "refused"),
    [
        (200, "text/html", True),
        (200, "text/html; charset=utf-8", True),
        (200, "application/octet-stream", False),
        (200, "", False),
        # A redirect may have a page for people who do not follow it.
        (302, "text/html", False),
    ],
)
def test_an_html_page_is_refused(status: int, kind: str, refused: bool) -> None:
    expected = (
        f"{URL} is invalid: the answer is an HTML page, not m.gguf. Check whether a login page or a"
        " proxy answers in place of the source"
    )
    assert judged(status, {"content-type": kind}) == (expected if refused else "")


@pytest.mark.parametrize(
    ("status", "headers", "found"),
    [
        # The hub reports the file itself, whatever the redirect has.
        (302, {"x-linked-size": "100", "x-linked-etag": f'"{SHA256}"'}, None),
        (302, {"x-linked-size": "100", "x-linked-etag": SHA256}, None),
        (302, {"x-linked-size": "100", "content-length": "1085", "etag": f'"{OTHER}"'},
         (OTHER, "100")),
        (302, {"x-linked-size": "100", "content-length": "1085"}, None),
        (302, {"content-length": "1085"}, None),
        (302, {"x-linked-size": "99"}, ("unknown", "99")),
        (302, {"x-linked-size": "99", "x-linked-etag": SHA256}, (SHA256, "99")),
        (302, {"x-linked-size": "100", "x-linked-etag": OTHER}, (OTHER, "100")),
        (302, {"x-linked-etag": f'"{OTHER}"'}, (OTHER, "unknown")),
        # Right where it matters, and another tag for what leads there.
        (302, {"x-linked-etag": f'"{SHA256}"', "etag": f'"{OTHER}"'}, None),
        # The hub's tag of a small file is git's, and says nothing.
        (200, {"etag": f'"{SHA1}"', "content-length": "100"}, None),
        (302, {"x-linked-etag": f'"{SHA1}"', "etag": f'"{OTHER}"'}, (OTHER, "unknown")),
        (302, {"x-linked-etag": f'"{SHA1}"', "etag": SHA256}, None),
        # A plain server reports the size, and may have any tag.
        (200, {"content-length": "100"}, None),
        (200, {"content-length": "99"}, ("unknown", "99")),
        (200, {"content-length": "99", "x-linked-size": "100"}, None),
        (200, {"content-length": "100", "x-linked-size": "99"}, ("unknown", "99")),
        (200, {"etag": f'"{SHA256}"'}, None),
        (200, {"etag": OTHER}, (OTHER, "unknown")),
        (200, {"etag": f'W/"{OTHER}"'}, None),
        (200, {"etag": f'"{OTHER.upper()}"'}, None),
        (200, {"etag": f'"{OTHER}0"'}, None),
        (200, {"etag": '"5f3c-61b"'}, None),
        (200, {"etag": ""}, None),
        # A size that is no number does not count.
        (200, {"content-length": "many"}, None),
        (200, {"content-length": "-1"}, None),
        (302, {"x-linked-size": ""}, None),
    ],
)  # fmt: skip
def test_size_and_hash_are_compared(
    status: int, headers: dict[str, str], found: tuple[str, str] | None
) -> None:
    expected = ""
    if found:
        expected = (
            f"{URL} does not fit models.yml: the source reports sha256 {found[0]} and size"
            f" {found[1]}, and models.yml says sha256 {SHA256} and size 100. {ANOTHER_FILE}"
        )
    assert judged(status, headers) == expected


# --- curl's options ------------------------------------------------------------------------------


def test_options_of_curl() -> None:
    asked = job()
    assert build_curl_config(asked, asked.files[0], 17) == (
        f'url = "{URL}"\n'
        'user-agent = "edge-llm"\n'
        'proto = "=https"\n'
        'proto-redir = "=https"\n'
        "max-filesize = 100\n"
        "fail\nlocation\nsilent\n"
        "show-error\nmax-redirs = 5\n"
        "connect-timeout = 15\nno-buffer\n"
        "speed-limit = 1\nspeed-time = 30\n"
        "continue-at = 17\n"
        'write-out = "%{stderr}\\nhttp-status %{http_code}\\n"\n'
    )


def test_http_may_redirect_to_https() -> None:
    asked = job(url=PLAIN_URL)
    lines = build_curl_config(asked, asked.files[0], 0).splitlines()
    assert [line for line in lines if line.startswith("proto")] == [
        'proto = "=http,https"',
        'proto-redir = "=http,https"',
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"token": TOKEN}, f'header = "Authorization: Bearer {TOKEN}"'),
        ({"proxy": "http://proxy:3128"}, 'proxy = "http://proxy:3128"'),
        ({"ca_certificates": "/run/a.pem"}, 'cacert = "/run/a.pem"'),
    ],
)
def test_optional_options_of_curl(changes: dict[str, str], line: str) -> None:
    plain, more = job(), job(**changes)
    before = build_curl_config(plain, plain.files[0], 0).splitlines()
    assert build_curl_config(more, more.files[0], 0).splitlines() == [*before, line]


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("a b", '"a b"'),
        ('say "no"', r'"say \"no\""'),
        ("back\\slash", r'"back\\slash"'),
        ('\\"', r'"\\\""'),
        ("# no comment = none", '"# no comment = none"'),
    ],
)
def test_values_for_curl_are_quoted(value: str, quoted: str) -> None:
    asked = job(token=value, proxy=value, ca_certificates=value, url=value)
    lines = build_curl_config(asked, asked.files[0], 0).splitlines()
    assert [lines[0], *lines[-3:]] == [
        f"url = {quoted}",
        f'header = "Authorization: Bearer {quoted[1:]}',
        f"proxy = {quoted}",
        f"cacert = {quoted}",
    ]


# --- a source that answers -----------------------------------------------------------------------


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes = b""


class Source:
    """A server on this machine's loopback: `answers` by path, `seen` are its requests."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                source.seen.append((self.command, self.path, headers))
                answer = source.answers.get(self.path, Answer(404, {}))
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in answer.headers:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(answer.body)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    yield made
    made.stop()


def test_the_check_of_a_source_sends_head_requests(source: Source) -> None:
    """A redirect has the hub's headers about the file, so it is not followed."""
    led = {"Location": "/cdn", "X-Linked-Size": "100", "X-Linked-ETag": f'"{SHA256}"'}
    source.answers["/m.gguf"] = Answer(302, led)
    asked = job(url=f"{source.url}/m.gguf", token=TOKEN)
    check_file(asked, asked.files[0])
    ((method, path, headers),) = source.seen
    assert (method, path) == ("HEAD", "/m.gguf")
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["user-agent"] == "edge-llm"
    check_file(job(url=f"{source.url}/m.gguf"), asked.files[0])
    assert "authorization" not in source.seen[1][2]


def test_the_answer_of_a_source_is_checked(source: Source) -> None:
    url = f"{source.url}/m.gguf"
    asked = job(url=url)
    with pytest.raises(
        DownloadError, match=r"/m\.gguf is missing: the source answered with status 404\. "
    ):
        check_file(asked, asked.files[0])
    source.answers["/m.gguf"] = Answer(200, {"ETag": f'"{OTHER}"'}, b"x" * 100)
    with pytest.raises(DownloadError, match=f"the source reports sha256 {OTHER} and size 100"):
        check_file(asked, asked.files[0])


def test_a_source_is_checked_through_a_proxy(source: Source) -> None:
    source.answers[PLAIN_URL] = Answer(200, {"Content-Length": "100"})
    asked = job(url=PLAIN_URL, proxy=source.url)
    check_file(asked, asked.files[0])
    assert [(method, path) for method, path, _ in source.seen] == [("HEAD", PLAIN_URL)]


def test_an_unreachable_source() -> None:
    # A free port may become another test's: this one is taken, and nobody listens.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/m.gguf"
        asked = job(url=url)
        with pytest.raises(DownloadError) as caught:
            check_file(asked, asked.files[0])
    assert str(caught.value) == (
        f"{url} is not reachable: [Errno 111] Connection refused. Check the network of the machine"
        " that downloads, or set llm_models_proxy, llm_models_mirror or llm_models_cache"
    )


def test_a_source_with_an_authority_of_its_own(tmp_path: Path) -> None:
    """Check and curl refuse it without its authority, a file or (for the check) text."""
    pem, certificate = tmp_path / "own.pem", tmp_path / "certificate.pem"
    words = (
        "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=own -days 2"
    )
    made = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", certificate)
    subprocess.run(["openssl", *words.split(), *made], capture_output=True, check=True)
    pem.write_text(pem.read_text() + certificate.read_text())
    source = Source(pem)
    source.answers["/m.gguf"] = Answer(200, {}, b"x" * 100)
    url, target = f"{source.url}/m.gguf", tmp_path / "m.gguf"
    sentence = f"the certificate of {url} is not trusted by this machine: "
    asked = job(url=url)
    with pytest.raises(DownloadError) as caught:
        check_file(asked, asked.files[0])
    assert str(caught.value).startswith(sentence)
    ended = curl(asked, target)
    assert (find_permanent_problem(asked, asked.files[0], ended) or "").startswith(sentence)
    for ca_certificates in (str(pem), certificate.read_text()):
        check_file(job(url=url, ca_certificates=ca_certificates), asked.files[0])
    assert curl(job(url=url, ca_certificates=str(pem)), target).exit_status == 0
    source.stop()


@pytest.mark.parametrize(
    "ca_certificates",
    ["/no/such.pem", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"],
)
def test_invalid_certificates_of_an_authority(ca_certificates: str) -> None:
    asked = job(ca_certificates=ca_certificates)
    with pytest.raises(
        DownloadError, match=r"^the certificates of llm_models_ca are invalid: .* PEM format$"
    ):
        check_file(asked, asked.files[0])


def curl(asked: DownloadJob, target: Path) -> CurlResult:
    """curl as the program starts it; `target` gets its output."""
    start = target.stat().st_size if target.exists() else 0
    with target.open("ab") as output:
        done = subprocess.run(
            ["curl", "-q", "--config", "-"],
            input=build_curl_config(asked, asked.files[0], start).encode(),
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
        )
    return parse_curl_output(done.returncode, done.stderr.decode().splitlines())


def test_curl_reads_its_configuration(source: Source, tmp_path: Path) -> None:
    """A token goes to the source and not to where that leads."""
    elsewhere = Source()
    target = tmp_path / "m.gguf"
    source.answers["/m.gguf"] = Answer(302, {"Location": f"http://localhost:{elsewhere.port}/cdn"})
    elsewhere.answers["/cdn"] = Answer(200, {}, CONTENT)
    ended = curl(job(url=f"{source.url}/m.gguf", token=TOKEN), target)
    elsewhere.stop()
    assert ended == (0, 200, "")
    assert target.read_bytes() == CONTENT
    assert source.seen[0][2]["authorization"] == f"Bearer {TOKEN}"
    assert [headers.get("authorization") for _, _, headers in elsewhere.seen] == [None]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Answer(404, {}), " is missing: the source answered with status 404. Correct the entry in"),
        (
            Answer(401, {}),
            " is not accessible: the source answered with status 401, as it requires",
        ),
        (
            Answer(200, {}, b"x" * 101),
            " does not fit models.yml: the source sends more than the 100 bytes of models.yml",
        ),
        (Answer(503, {}), None),
    ],
)
def test_results_of_curl_are_explained(
    source: Source, tmp_path: Path, answer: Answer, sentence: str | None
) -> None:
    source.answers["/m.gguf"] = answer
    url = f"{source.url}/m.gguf"
    asked = job(url=url, folder=tmp_path)
    said = find_permanent_problem(asked, asked.files[0], curl(asked, tmp_path / "m.gguf"))
    assert said is None if sentence is None else (said or "").startswith(url + sentence)


def test_only_curl_gets_the_token(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither in arguments and environment, which others see, nor in any file."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "curl").write_text(
        '#!/bin/sh\nd=$(dirname "$0")\n(echo "$@"; export) > "$d/seen"\n'
        f'PATH={SEARCH_PATH}\ntee "$d/config" | curl "$@"\n'
    )
    (tools / "curl").chmod(0o755)
    monkeypatch.setattr(commands, "SEARCH_PATH", f"{tools}:{SEARCH_PATH}")
    monkeypatch.setattr(disk, "DISK_RESERVE", 0)
    source.answers["/m.gguf"] = Answer(200, {}, CONTENT)
    file = {
        **{"name": "m.gguf", "path": "m.gguf", "size": len(CONTENT), "sha256": CONTENT_SHA256},
        "url": f"{source.url}/m.gguf",
    }
    models, runtime = tmp_path / "models", tmp_path / "run"
    for folder in (models, runtime):
        folder.mkdir()
    run_job(DownloadSession(job(folder=models, files=[file], token=TOKEN), runtime))
    assert (models / "m.gguf").read_bytes() == CONTENT
    assert (tools / "config").read_text().count(TOKEN) == 1
    assert "-q --config -" in (tools / "seen").read_text()
    kept = [each for each in tmp_path.rglob("*") if each.is_file() and each.name != "config"]
    assert {"m.gguf", "status.json", "seen"} <= {each.name for each in kept}
    assert [each for each in kept if TOKEN.encode() in each.read_bytes()] == []


def test_files_of_a_folder_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    asked = {
        **{"name": "m.gguf-1", "folder": str(tmp_path), "mode": "source"},
        "files": [
            {"name": "m.gguf", "path": "m.gguf", "size": 100, "sha256": SHA256, "local": str(file)}
        ],
    }
    assert check_source(asked, "") == (
        f"{file} is missing. Copy the file into the folder of llm_models_mirror"
    )
    file.write_bytes(b"GGUF")
    assert check_source(asked, "") == (
        f"{file} does not fit models.yml: it has 4 bytes, and models.yml says 100. Replace the"
        " file, or correct the entry in models.yml"
    )
    file.write_bytes(b"x" * 100)
    assert check_source(asked, "") is None


@pytest.mark.parametrize(
    ("content", "header", "message"),
    [
        (
            CONTENT.upper(),
            {},
            "m.gguf does not fit models.yml: the downloaded file has sha256"
            f" {hashlib.sha256(CONTENT.upper()).hexdigest()}, and models.yml says {CONTENT_SHA256}."
            f" It was kept as m.gguf.rejected and is not used. {ANOTHER_FILE}",
        ),
        (
            b"<!DOCTYPE html>" + CONTENT[15:],
            {},
            "m.gguf is invalid: the source sent an HTML page (kept as m.gguf.rejected). Check"
            " whether a login page or a proxy answers in place of the source",
        ),
        (
            CONTENT,
            {"layers": 30},
            "the entry of m.gguf in models.yml does not fit the file: the file is no valid GGUF"
            " file, since its GGUF version is 1768257312, and versions 2 and 3 are supported."
            " Correct the entry",
        ),
    ],
    ids=["hash", "page", "header"],
)
def test_a_download_that_does_not_fit_is_not_installed(
    tmp_path: Path, content: bytes, header: dict[str, Any], message: str
) -> None:
    file = {
        **{"name": "m.gguf", "path": "m.gguf", "size": len(CONTENT), "sha256": CONTENT_SHA256},
        **{"url": URL, "header": header},
    }
    asked = job(folder=tmp_path, files=[file])
    session = DownloadSession(asked, tmp_path)
    asked.bundle_folder.mkdir(parents=True)
    (asked.bundle_folder / "m.gguf").write_bytes(content)
    with pytest.raises(DownloadError) as caught:
        install_files(session)
    assert str(caught.value) == message
    assert not (tmp_path / "m.gguf").exists()


# --- how a download ended ------------------------------------------------------------------------


@pytest.mark.parametrize("code", [5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92, 95, 96])
@pytest.mark.parametrize("status", [0, 200, 206])
def test_connection_errors_are_transient(code: int, status: int) -> None:
    asked = job()
    assert find_permanent_problem(asked, asked.files[0], CurlResult(code, status, "words")) is None


@pytest.mark.parametrize(
    ("ended", "sentence"),
    [
        # It answers, and may answer otherwise soon.
        (CurlResult(22, 408, ""), None),
        (CurlResult(22, 425, ""), None),
        (CurlResult(22, 429, ""), None),
        (CurlResult(22, 500, ""), None),
        (CurlResult(22, 503, ""), None),
        # It answers, and will not answer otherwise.
        (CurlResult(22, 400, ""), f"{URL} is not available: {ANSWERED} 400. {ANOTHER_FILE}"),
        (CurlResult(22, 404, ""), f"{URL} is missing: {ANSWERED} 404. {ANOTHER_FILE}"),
        (CurlResult(22, 410, ""), f"{URL} is missing: {ANSWERED} 410. {ANOTHER_FILE}"),
        (CurlResult(22, 416, ""), f"{URL} is not available: {ANSWERED} 416. {ANOTHER_FILE}"),
        (
            CurlResult(22, 401, ""),
            f"{URL} is not accessible: {ANSWERED} 401, as it requires a token. Set"
            " llm_models_token",
        ),
        (
            CurlResult(1, 302, "Protocol http disabled"),
            f"{URL} is invalid: it redirects to another protocol. Set llm_models_mirror to a source"
            " that stays on https",
        ),
        (
            CurlResult(63, 200, "Maximum file size exceeded"),
            f"{URL} does not fit models.yml: the source sends more than the 100 bytes of"
            f" models.yml. {ANOTHER_FILE}",
        ),
        (
            CurlResult(60, 0, "self-signed certificate"),
            f"the certificate of {URL} is not trusted by this machine: self-signed certificate."
            f" {CA}",
        ),
        (
            CurlResult(77, 0, "error setting certificate file"),
            f"the certificate of {URL} is not trusted by this machine: error setting certificate"
            f" file. {CA}",
        ),
        (
            CurlResult(47, 302, "Maximum (5) redirects followed"),
            f"{URL} could not be downloaded: Maximum (5) redirects followed. {AGAIN}",
        ),
        (
            CurlResult(3, 0, ""),
            f"{URL} could not be downloaded: curl ended with exit status 3. {AGAIN}",
        ),
        (
            CurlResult(-9, 0, ""),
            f"{URL} could not be downloaded: curl ended with exit status -9. {AGAIN}",
        ),
    ],
)
def test_permanent_problems(ended: CurlResult, sentence: str | None) -> None:
    asked = job()
    assert find_permanent_problem(asked, asked.files[0], ended) == sentence


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    asked = job(folder=tmp_path)
    asked.bundle_folder.mkdir(parents=True)

    def write(*_: object) -> int:
        raise OSError(number, "no room")

    with IncomingFile(DownloadSession(asked, tmp_path), asked.files[0]) as incoming:
        monkeypatch.setattr("edge_host.download.incoming.os.write", write)
        with pytest.raises(DownloadError) as caught:
            incoming.write(b"x")
        monkeypatch.undo()
    assert str(caught.value) == (
        f"the disk of {tmp_path} is full. Free some space, and run site.yml again"
    )


@pytest.mark.parametrize(
    ("lines", "result"),
    [
        ([], CurlResult(18, 0, "")),
        (["", "http-status 206"], CurlResult(18, 206, "")),
        (
            ["curl: (18) transfer closed", "", "http-status 200"],
            CurlResult(18, 200, "transfer closed"),
        ),
        (
            ["curl: (6) Could not resolve", "http-status 000"],
            CurlResult(18, 0, "Could not resolve"),
        ),
        (["Warning: x", "curl: (7) http-status 404"], CurlResult(18, 0, "http-status 404")),
    ],
)
def test_what_curl_says(lines: list[str], result: CurlResult) -> None:
    assert parse_curl_output(18, lines) == result
