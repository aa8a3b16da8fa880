"""The documents say what the code does: their examples run, their lists are the code's own."""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from llm_provider import errors
from llm_provider.cli import exit_status
from llm_provider.cli.check import MAX_TOKENS, Wanted, check
from llm_provider.providers.base import LLMProvider
from llm_provider.providers.settings import DEFAULT_BASE_URL, Task
from llm_provider.server.admission import AdmissionQueue
from llm_provider.server.application import create_app
from llm_provider.server.body import BodyRefusedError
from llm_provider.server.body_budget import BodyBudget
from llm_provider.server.connection_guard import ConnectionGuard
from llm_provider.server.connection_metrics import ConnectionCollector
from llm_provider.server.engine_file import NAMES
from llm_provider.server.engine_state import EngineState
from llm_provider.server.limits import Limits
from llm_provider.server.metrics import Metrics
from llm_provider.server.routes import ROUTES
from llm_provider.server.stall_timer import STALL_SECONDS
from llm_provider.server.tls import Certificate
from tests.unit.llm_provider.fake import free_port
from tests.unit.llm_provider.scripted import Asked, Scripted, serving
from tests.unit.llm_provider.server.certificates import Files, Pair

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src/llm_provider"
LIBRARY = (ROOT / "docs/llm-provider.md").read_text()
API = (ROOT / "docs/chat-api.md").read_text()
TEXTS = {"llm-provider": LIBRARY, "chat-api": API}

MODEL = "smollm2-135m"
ANSWER = "The capital of France is Paris."
API_URL = "http://198.18.40.11:8000"
KEY = "a-key-of-the-documents"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


# The engine that the examples meet


class Engine(Scripted):
    """A llama-server that does what the documents tell of; no key is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.loading = 0  # how many questions for /health it is still loading
        self.left = 0  # clients that went before their answer was complete

    async def answer(self, request: Request) -> Response:
        body = json.loads(raw) if (raw := await request.body()) else {}
        self.asked.append(Asked(request.url.path, None, body))
        match request.url.path:
            case "/health" if self.loading:
                self.loading -= 1
                return _problem(503, "Loading model")
            case "/health":
                return JSONResponse({"status": "ok"})
            case "/props":
                settings = {"n_ctx": 4096}
                return JSONResponse({"default_generation_settings": settings, "total_slots": 4})
            case "/v1/models":
                return JSONResponse({"data": [{"id": MODEL}]})
            case "/v1/chat/completions":
                return await self._chat(request, body)
            case "/v1/embeddings":
                vectors = [{"embedding": [0.1, 0.2, 0.3]} for _ in body["input"]]
                return JSONResponse({"data": vectors})
        return _problem(404, "File Not Found")

    async def _chat(self, request: Request, body: dict[str, Any]) -> Response:
        prompt = body["messages"][-1]["content"]
        if "too long" in prompt:
            return _problem(
                400,
                "request (9000 tokens) exceeds the available context size (4096 tokens), "
                "try increasing it",
            )
        if not body["stream"]:
            if "for ever" in prompt:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                self.left += 1
            message = {"role": "assistant", "content": ANSWER}
            return JSONResponse(
                {"model": MODEL, "choices": [{"message": message, "finish_reason": "stop"}]}
                | {"usage": _USAGE}
            )
        if "breaks off" in prompt:
            pieces = _events("Once upon a time")
        elif "for ever" in prompt:
            pieces = _events("one two three four five " * 1000)
        else:
            pieces = [
                *_events(ANSWER),
                _event({}, "stop"),
                _event(usage=_USAGE),
                b"data: [DONE]\n\n",
            ]
        return StreamingResponse(self._send(pieces), media_type="text/event-stream")

    async def _send(self, pieces: list[bytes]) -> Any:
        sent = 0
        try:
            for piece in pieces:
                yield piece
                sent += 1
                await asyncio.sleep(0.002)
        finally:
            self.left += sent < len(pieces)


_USAGE = {"prompt_tokens": 37, "completion_tokens": 6, "total_tokens": 43}


def _problem(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": status, "message": message, "type": "x"}}, status)


def _event(
    delta: dict[str, Any] | None = None, finish_reason: str | None = None, **more: Any
) -> bytes:
    choices = [] if delta is None else [{"delta": delta, "finish_reason": finish_reason}]
    return f"data: {json.dumps({'model': MODEL, 'choices': choices, **more})}\n\n".encode()


def _events(text: str) -> list[bytes]:
    first, *words = text.split()
    return [_event({"content": word}) for word in (first, *(f" {word}" for word in words))]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving(Engine()) as running:
        assert isinstance(running, Engine)
        yield running


@pytest.fixture(scope="module")
def api_engine() -> Iterator[Engine]:
    """The chat API's: it asks all the time whether its engine is ready."""
    with serving(Engine()) as running:
        assert isinstance(running, Engine)
        yield running


@pytest.fixture(scope="module")
def api(api_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The chat API's address; it stands before `api_engine`, as a process of its own."""
    keys = tmp_path_factory.mktemp("keys") / "api_keys"
    keys.write_text(f"{KEY}\n")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_provider.server", "--host=127.0.0.1", f"--port={port}"],
        stdout=subprocess.DEVNULL, env=_environ(LLM_PROVIDER="llamacpp", LLM_MODEL=MODEL,
        LLM_BASE_URL=api_engine.url, CHAT_API_KEYS_FILE=str(keys), PARALLEL="4"),
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, "the chat API ended"
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1).close()  # noqa: S310
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise AssertionError("the chat API did not answer within 30 seconds")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def _environ(**more: str) -> dict[str, str]:
    """The environment, without what whoever runs the tests has set for the project itself."""
    ours = re.compile(r"(LLM|OPENAI|CHAT_API)_.*|HARDWARE|CTX_SIZE|PARALLEL")
    kept = {name: value for name, value in os.environ.items() if not ours.fullmatch(name)}
    return kept | {"PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8"} | more


# Examples


def _examples(text: str) -> list[tuple[str, str]]:
    """Each Python example, and what it prints, which stands in the block after it."""
    blocks = _BLOCK.findall(text)
    found = []
    for (kind, code), (next_kind, output) in itertools.pairwise(blocks):
        if kind == "python":
            assert next_kind == "text", f"no output stands after:\n{code}"
            found.append((code, output))
    return found


EXAMPLES = [
    pytest.param(code, output, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, (code, output) in enumerate(_examples(text), 1)
]


def test_there_are_examples_of_both() -> None:
    assert len(_examples(LIBRARY)) >= 7
    assert len(_examples(API)) >= 1
    for text in TEXTS.values():
        assert text.count("```python") == len(_examples(text))


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
def test_every_python_example_prints_what_it_says(
    code: str, output: str, engine: Engine, api: str
) -> None:
    engine.loading = 1 if "EngineLoadingError" in code and "ready()" in code else 0
    engine.left = 0
    code = code.replace(DEFAULT_BASE_URL, engine.url)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, check=False, timeout=120,
        env=_environ(LLM_BASE_URL=engine.url, OPENAI_BASE_URL=f"{api}/v1", OPENAI_API_KEY=KEY),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == output.replace(DEFAULT_BASE_URL, engine.url)
    if "stopped by the clock" in output:
        for _ in range(500):
            if engine.left == 2:
                break
            time.sleep(0.01)
        assert engine.left == 2, "the engine was not told that nobody waits for its answers"


def _commands(text: str) -> list[tuple[str, str]]:
    """Each command typed in a console block, and what it prints."""
    found = []
    for kind, block in _BLOCK.findall(text):
        if kind == "console":
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                found.append((command, output))
    return found


COMMANDS = _commands(LIBRARY)


def test_every_verb_is_shown_both_ways() -> None:
    shown = {(shlex.split(command)[1], "--json" in command) for command, _ in COMMANDS}
    assert shown == {
        (verb, way) for verb in ("check", "chat", "models", "bench") for way in (False, True)
    }


def _shape(value: Any) -> Any:
    """What kinds of value stand where; of a list, its first entry counts for all.

    A pace is null where a busy machine delivers a whole answer at once.
    """
    if isinstance(value, dict):
        return {
            name: "pace" if name == "tokens_per_second" else _shape(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_shape(inner) for inner in value[:1]]
    if isinstance(value, bool) or value is None:
        return value
    return "number" if isinstance(value, int | float) else type(value).__name__


def _without_figures(text: str) -> list[str]:
    """Lines in which one number is as good as another, and so is the room that it takes."""
    text = text.replace("all at once", "0 tokens/s")  # as a busy machine delivers a whole answer
    return [re.sub(r"\s+", " ", re.sub(r"\d+(\.\d+)?", "N", line)) for line in text.splitlines()]


@pytest.mark.parametrize(("command", "output"), COMMANDS, ids=[each[0] for each in COMMANDS])
def test_every_command_prints_what_it_says(command: str, output: str, api: str) -> None:
    words = shlex.split(command.replace(API_URL, api))
    if "--compare" in words:
        words += ["--compare-key-file", "-"]
    assert words[0] == "llm-provider"
    done = subprocess.run(
        [sys.executable, "-m", "llm_provider", *words[1:]], input=KEY,
        capture_output=True, text=True, check=False, timeout=120,
        env=_environ(OPENAI_BASE_URL=f"{api}/v1", OPENAI_API_KEY=KEY),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    if "--json" in words:
        assert _shape(json.loads(done.stdout)) == _shape(json.loads(output))
    else:
        said = done.stdout.replace(api, API_URL)
        assert _without_figures(said) == _without_figures(output)


@pytest.mark.parametrize("path", ["/ready", "/api/chat"])
def test_answers_of_the_chat_api_have_the_shape_that_is_shown(path: str, api: str) -> None:
    (block,) = [
        json.loads(body)
        for section, kind, body in _sectioned(API)
        if kind == "json" and path in section
    ]
    data = json.dumps({"message": "Hello"}).encode() if path == "/api/chat" else None
    request = urllib.request.Request(  # noqa: S310 - an address of this test's own
        f"{api}{path}", data, {"Authorization": f"Bearer {KEY}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        assert _shape(json.load(answer)) == _shape(block)


def _sectioned(text: str) -> Iterator[tuple[str, str, str]]:
    """Each block with the heading that it stands under, its kind and its content."""
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE):
        heading = section.partition("\n")[0]
        for kind, body in _BLOCK.findall(section):
            yield heading, kind, body


# Lists


def _rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its own heading."""
    below = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    table = re.search(r"^\|.*?(?=^(?!\|))", below, re.MULTILINE | re.DOTALL)
    assert table, f"no table below {heading}"
    rows = [line.strip("|").split(" | ") for line in table[0].splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def _named(cells: list[str]) -> set[str]:
    """What stands in backquotes in some cells."""
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def _constants(name: str) -> set[str]:
    """Names of environment variables in a source file: its constants in capitals."""
    tree = ast.parse((SOURCE / name).read_text())
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", node.value)
    }


def test_the_routes_are_the_codes(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    environ = {"CHAT_API_KEYS_FILE": str(keys), "LLM_MODEL": MODEL, "LLM_PROVIDER": "llamacpp"}
    environ["CHAT_API_DOCS"] = "1"
    served = set()
    for route in create_app(environ).routes:
        for method in set(getattr(route, "methods", ())) - {"HEAD"}:
            served.add(f"{method} {getattr(route, 'path', '').replace(':path', '')}")
    engines = {f"POST {path}" for path in ROUTES}  # in a table of their own: test_route_docs
    assert _named([row[0] for row in _rows(API, "Routes")]) == served - engines


def test_the_settings_are_the_codes() -> None:
    readers = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if re.search(r"\benviron\b", path.read_text()) and path.parent.name != "cli"
    } - {"server/lean_imports.py"}  # sets variables for libraries
    assert readers == {
        "providers/selection.py", "providers/settings.py", "server/application.py",
        "server/engine_file.py", "server/ephemeral.py", "server/limits.py", "server/settings.py",
        "standalone/healthcheck.py",
    }  # fmt: skip
    known = (set.union(*(_constants(name) for name in readers)) | NAMES) - {"GET", "HEAD", "POST"}
    assert known >= {"CHAT_API_KEYS_FILE", "LLM_MODEL", "HARDWARE", "PARALLEL"}
    assert _named([row[0] for row in _rows(API, "Settings")]) == known
    library = _named([row[1] for row in _rows(LIBRARY, "Which engine, and where")])
    assert library >= _constants("providers/settings.py") - {
        "HARDWARE",
        "CTX_SIZE",
        "PARALLEL",
        "LLM_HOLD",
        "LLM_TASK",
    }


def test_the_metrics_are_the_codes(tmp_path: Path) -> None:
    class Silent(LLMProvider):
        name = "silent"

        async def health(self) -> None: ...
        async def ready(self) -> None: ...
        async def capacity(self) -> Any: ...

    queue = AdmissionQueue(EngineState(Silent(model=MODEL), 1), 1)
    metrics = Metrics(queue, BodyBudget(1))
    files = Files.at(tmp_path, Pair.made())
    certificate = Certificate(files.certificate, files.key)
    metrics.register(ConnectionCollector(ConnectionGuard(Limits()), certificate))
    notes = {"first_bytes_seconds": 0.5, "tokens_in": 1, "key": "alice"}
    metrics.done("/v1/chat/completions", "complete", 1.0, notes)
    lines = [line for line in metrics.text().decode().splitlines() if "_created" not in line]
    told = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    ours = {name for name in told if name.startswith("edge_llm_")}
    rows = _rows(API, "Metrics")
    assert _named([row[0] for row in rows]) == ours
    assert {name for name in told - ours if not name.startswith("process_")} == set()
    labels: dict[str, set[str]] = {}
    for line in lines:
        if match := re.match(r"(edge_llm_\w+?)(?:_bucket|_sum|_count)?\{(.*?)\}", line):
            found = set(re.findall(r"(\w+)=", match[2])) - {"le"}
            labels[match[1]] = labels.get(match[1], set()) | found
    documented = {
        row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1].partition(":")[0])) for row in rows
    }
    assert {name: found for name, found in documented.items() if found} == labels


def _given(name: str) -> set[str]:
    """The texts that the source gives for a keyword, or sets or notes under that name."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            values: list[ast.expr] = []
            if isinstance(node, ast.keyword) and node.arg == name:
                values = [node.value]
            elif isinstance(node, ast.Assign):
                target = ast.unparse(node.targets[0])
                values = [node.value] if target.endswith((f".{name}", f"notes['{name}']")) else []
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "notes.setdefault":
                key, value = node.args
                values = [value] if ast.unparse(key) == f"'{name}'" else []
            found |= {
                inner.value
                for value in values
                for inner in ast.walk(value)
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
            }
    return found - {"code"}  # a key of an engine's error


def test_the_error_codes_are_the_codes() -> None:
    rows = [*_rows(API, "Errors"), *_rows(API, "The engine itself")]
    codes = _named([row[1] for row in rows])
    assert codes == _given("code") | {kind.code for kind in BodyRefusedError.__subclasses__()}
    below = API.partition("| outcome |")[2]
    outcomes = re.findall(r"^\| `(\w+)` \|", below, re.MULTILINE)
    assert set(outcomes) == _given("outcome") - codes - {"complete"}


def _all_kinds(kind: type[Exception]) -> set[str]:
    names = {each.__name__ for each in kind.__subclasses__() if not each.__name__.startswith("_")}
    return names.union(*(_all_kinds(each) for each in kind.__subclasses__()))


def test_the_errors_of_the_module_are_the_codes() -> None:
    assert _named([row[0] for row in _rows(LIBRARY, "Errors")]) == {
        name for name in _all_kinds(errors.LLMError) if hasattr(errors, name)
    }


def test_every_method_of_a_provider_is_told_of() -> None:
    methods = [name for name, value in vars(LLMProvider).items() if callable(value)]
    assert "generate_stream" in methods
    for name in methods:
        assert name.startswith("_") or f"`{name}(" in LIBRARY, name


async def test_the_checks_are_the_codes() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    reports = [await check(url, None, Wanted(task=task.value, seconds=0.1)) for task in Task]
    names = list(dict.fromkeys(f"`{one.name}`" for each in reports for one in each.checks))
    assert [row[0] for row in _rows(LIBRARY, "`check`: is the host as it should be?")] == names
    assert f"`--max-tokens` ({MAX_TOKENS})" in LIBRARY


def test_the_exit_statuses_are_the_codes() -> None:
    rows = _rows(LIBRARY, "The command")
    assert [int(row[0]) for row in rows] == [
        exit_status.OK, exit_status.FAILED, exit_status.USAGE, exit_status.NOT_REACHABLE,
        exit_status.STOPPED,
    ]  # fmt: skip
    assert f"takes nothing of its stream for {STALL_SECONDS:.0f} seconds" in API


DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
            assert anchor in anchors, target
