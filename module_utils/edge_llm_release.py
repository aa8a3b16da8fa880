"""Releases on a host: staged while the old one serves, switched to, proven, committed or undone.

A release is a folder `releases/NNNN` that says everything: docker-compose.yml, .env, engine.env
(where the chat API finds its engine), release.json, and in `source` the first three as they were
rendered, with a token where a slot belongs. The link `current` names the one that the
host runs; changing that link is the commit, so whatever cuts a change short, the host can be
brought to a release that was proven: `restore` does that, at the host's start and after a change
that was killed.

Two containers can stand for each part, `engine-a` and `engine-b`, `api-a` and `api-b`: a part that
changes comes up in the slot that is free. The chat API is told of its engine by
`engine/engine.env`, and takes its sockets from the door, so neither change refuses a connection.

The standard library only: this is a module of Ansible's and, installed on the host, a program:

    cd /opt/edge-llm/lib && python3 -m edge_llm.edge_llm_release restore
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from contextlib import contextmanager
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from .edge_llm_gpu import explain, gpu_problem
from .edge_llm_hold import HoldLock
from .edge_llm_host import (
    DEPLOYED_FILES,
    DOOR,
    HISTORY,
    JOURNAL,
    LOCK,
    RELEASE,
    RELEASES,
    ROOT,
    SEARCH_PATH,
    gpu_reason,
    open_files,
    parse_meminfo,
    read_engine_log,
    read_journal,
    read_json,
    read_lock,
    read_models,
    read_ollama,
    read_text,
)
from .edge_llm_models import sync_folder, write_atomically
from .edge_llm_recovery import LOOK_SECONDS, extend, ready

Facts = Dict[str, Any]

# What a change does, in this order; those that it does not need are left out.
STEPS = (
    "begin",
    "create",
    "load",
    "prove",
    "hold",
    "drain",
    "stop",
    "start",
    "answer",
    "point",
    "hand over",
    "check",
    "commit",
    "leave",
    "clean",
)
# What bringing the current release back does, in this order; it can be cut short as well.
RESTORE_STEPS = ("restore", "restore point", "restore hand over", "restore clean", "restore end")
KEEP = 5
"""Releases that stay, beside the current one and the one before."""
PROJECT = "edge-llm"
PROOF = "edge-llm-proof"
PARTS = ("engine", "api")
COMPOSE, ENV, LIVE = DEPLOYED_FILES
"""LIVE is what the chat API follows; `NEXT` is what the proof is told."""
ENGINE = "engine.env"
NEXT = "engine/next.env"
ENGINE_KEY = "secrets/engine_key"
UNIT = "edge-llm-change"
MIB = 1024**2
SOURCE = "source"
"""The folder in a release that has its files as they were rendered."""
TOKENS = {"engine": "@ENGINE_SLOT@", "api": "@API_SLOT@"}
"""What the templates have in a slot's place: no name, key or address can hold it."""
# Where releases of before there were tokens had a slot, in their files by name.
_FORMER_SLOTS = {
    COMPOSE: (
        r"(?m)^(  (?P<part>engine|api)-)[ab](?=:$)",
        r"(?m)^(    container_name: edge-llm-(?P<part>engine|api)-)[ab]$",
        r"(?m)^(      CHAT_API_SOCKET: /run/edge-llm/(?P<part>api)-)[ab](?=\.sock$)",
    ),
    ENGINE: (r"(?m)^(LLM_BASE_URL=http://(?P<part>engine)-)[ab](?=:)",),
}
_POLL_SECONDS = 0.05
COMPOSE_SECONDS = 300.0
DOCKER_SECONDS = 60.0
STOP_SECONDS = 40
"""What a chat API gets to end its requests, once it is stopped."""
SIGNAL_SECONDS = 10.0
"""Until a chat API has seen a signal, or a change of its engine file."""
_DOCKER = "/var/run/docker.sock"
_LOG_LINES = 15
# What may change beside an engine's own need while two are loaded.
_SPARE_MEMORY = 256 * MIB


class Failure(Exception):
    """Why a change cannot be, or was undone; a sentence. `log` is what the engine said last."""

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.log = log


class Busy(Failure):
    """Somebody else changes the host."""


def now() -> str:
    """The time in UTC, as RFC 3339."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file whole: a cut of the power leaves the old one or the new one."""
    write_atomically(path, text.encode(), path.parent, mode)


# --- what is spoken to ---------------------------------------------------------------------------


class _Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    path: str,
    method: str,
    url: str,
    headers: Optional[Mapping[str, str]] = None,
    timeout: float = 60,
) -> Tuple[int, Any]:
    """(status, the JSON that was answered or None) of a request over the Unix socket at `path`."""
    connection = _Unix(path, timeout)
    try:
        connection.request(method, url, headers=dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text) if text else None
    except ValueError:
        return answer.status, None


class Docker:
    """The host's Docker engine: its API, where a command would cost time in a pause."""

    def container(self, name: str) -> Optional[Facts]:
        """What Docker says of a container; None where there is none of that name."""
        status, found = self._ask("GET", f"/containers/{name}/json")
        return found if status == 200 else None

    def running(self, name: str) -> bool:
        """Whether a container runs and Docker is not about to start it again."""
        found = self.container(name)
        return bool(found and found["State"]["Running"] and not found["State"]["Restarting"])

    def ours(self) -> Dict[str, str]:
        """Container name -> service, of all containers of the project but one-off ones."""
        wanted = {
            "label": [f"com.docker.compose.project={PROJECT}", "com.docker.compose.oneoff=False"]
        }
        query = urllib.parse.urlencode({"all": "true", "filters": json.dumps(wanted)})
        _, found = self._ask("GET", f"/containers/json?{query}")
        return {
            each["Names"][0].lstrip("/"): each["Labels"]["com.docker.compose.service"]
            for each in found or []
        }

    def start(self, name: str) -> None:
        """Start a container anew: one that Docker starts again and again, from nothing too."""
        self.stop(name, 10)
        self._do("POST", f"/containers/{name}/start", (204, 304))

    def stop(self, name: str, seconds: int) -> None:
        """Stop a container, which may be none or stopped already."""
        self._do(
            "POST", f"/containers/{name}/stop?t={seconds}", (204, 304, 404), timeout=seconds + 30
        )

    def kill(self, name: str, signal: str = "KILL") -> None:
        """Send a signal to a container; one that does not run is left alone."""
        self._do("POST", f"/containers/{name}/kill?signal={signal}", (204, 404, 409))

    def remove(self, name: str) -> None:
        """Remove a container, running or not, where there is one."""
        self._do("DELETE", f"/containers/{name}?force=true&v=true", (204, 404, 409))

    def has_image(self, reference: str) -> bool:
        """Whether an image is on the host."""
        status, _ = self._ask("GET", f"/images/{urllib.parse.quote(reference, safe='/:@')}/json")
        return status == 200

    def log(self, name: str, until: str = "") -> str:
        """The last lines that a container has written, as text; before `until`, where given."""
        return "\n".join(self.lines(name, until)[-_LOG_LINES:])

    def lines(self, name: str, until: str = "") -> List[str]:
        """The last 500 lines that a container has written, without colours; all before `until`.

        With both, Docker would look at the last lines first, and only then at their times: an
        engine that has been started again since may have written more than those.
        """
        words = ["--until", until] if until else ["--tail", "500"]
        done = self.command("logs", *words, name)
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout + done.stderr).strip()
        return text.splitlines()

    def command(
        self, *words: str, timeout: Optional[float] = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a docker command to its end, whatever that is."""
        return subprocess.run(
            ["docker", *words], env=environment(), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=timeout, check=False,
        )  # fmt: skip

    def _do(
        self, method: str, url: str, accepted: Sequence[int], timeout: float = DOCKER_SECONDS
    ) -> None:
        status, answer = self._ask(method, url, timeout)
        if status not in accepted:
            words = answer.get("message") if isinstance(answer, dict) else None
            raise Failure(f"Docker answered {method} {url} with status {status}: {words}.")

    def _ask(self, method: str, url: str, timeout: float = DOCKER_SECONDS) -> Tuple[int, Any]:
        try:
            return ask(_DOCKER, method, url, timeout=timeout)
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"Docker does not answer at {_DOCKER}: {error}.") from error


def environment() -> Dict[str, str]:
    """What commands run in: `docker compose` must take names from its file alone."""
    return {"PATH": SEARCH_PATH, "LC_ALL": "C", "HOME": os.environ.get("HOME", "/root")}


# --- releases ------------------------------------------------------------------------------------


class Release(NamedTuple):
    """A release on the host: its folder, and what its release.json says."""

    folder: Path
    record: Facts

    @property
    def number(self) -> int:
        return int(self.record["number"])

    @property
    def plan(self) -> Facts:
        plan: Facts = self.record["plan"]
        return plan

    def service(self, part: str) -> str:
        """The compose service of a part, such as engine-b."""
        return f"{part}-{self.record['slots'][part]}"

    def container(self, part: str) -> str:
        return f"{PROJECT}-{self.service(part)}"

    @property
    def hold(self) -> float:
        """Seconds that a change to it may keep requests waiting."""
        return float(self.record["drain_timeout"]) + float(self.record["start_timeout"])

    @property
    def engine_file(self) -> str:
        return (self.folder / ENGINE).read_text(encoding="utf-8")

    def __str__(self) -> str:
        return f"release {self.number} ({self.plan['provider']} with {self.plan['model']['name']})"


class Host:
    """A host's folder, with its releases, its lock and its engine file.

    `watch` hears of every step as it begins: the journal says it to people, tests cut there.
    """

    def __init__(
        self,
        root: str = ROOT,
        docker: Optional[Docker] = None,
        watch: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.root = Path(root)
        self.docker = docker or Docker()
        self.watch = watch
        self.hold_lock = HoldLock(self.root / LIVE, self.root / "run")

    # The lock.

    @contextmanager
    def locked(self, by: str, seconds: float = 2.0) -> Iterator[None]:
        """Hold the host's lock. Raises Busy, with who has had it since when, after `seconds`.

        The kernel lets go of it when its holder ends, so a dead one never needs breaking.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / LOCK).open("a+", encoding="utf-8") as file:
            end = time.monotonic() + seconds
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        held = read_lock(self.root) or {}
                        raise Busy(
                            f"{held.get('by', 'somebody')} has been changing the host since"
                            f" {held.get('since', 'just now')}; run this again when that has ended."
                        ) from None
                    time.sleep(0.1)
            file.seek(0)
            file.truncate()
            json.dump({"by": by, "since": now(), "pid": os.getpid()}, file)
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    # Releases.

    def release(self, number: int) -> Optional[Release]:
        """The release of that number, where it is there and whole."""
        folder = self.root / RELEASES / f"{number:04d}"
        record = read_json(folder / RELEASE)
        return Release(folder, record) if record else None

    def current(self) -> Optional[Release]:
        """The release that this host runs."""
        return self._linked("current")

    def previous(self) -> Optional[Release]:
        """The release before."""
        return self._linked("previous")

    def _linked(self, name: str) -> Optional[Release]:
        try:
            # Path.readlink is of Python 3.9.
            return self.release(int(Path(os.readlink(self.root / name)).name))  # noqa: PTH115
        except (OSError, ValueError):
            return None

    def numbers(self) -> List[int]:
        """The numbers of all that are there, whole or not."""
        folder = self.root / RELEASES
        names = [path.name.strip(".") for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdigit())

    def link(self, name: str, target: str) -> None:
        """Have the link `name` in the root point at `target`, in one step."""
        fresh = self.root / f".{name}.new"
        if fresh.is_symlink():
            fresh.unlink()
        fresh.symlink_to(target)
        fresh.replace(self.root / name)
        sync_folder(self.root)

    def commit(self, release: Release) -> None:
        """Make a release the current one: from here on, this is what the host starts with."""
        before = self.current()
        if before and before.number != release.number:
            self.link("previous", f"{RELEASES}/{before.folder.name}")
        self.link("current", f"{RELEASES}/{release.folder.name}")
        for name in (COMPOSE, ENV):
            if not (self.root / name).is_symlink():
                self.link(name, f"current/{name}")

    def prune(self) -> None:
        """Remove releases that nobody goes back to."""
        kept = {each.number for each in (self.current(), self.previous()) if each}
        for number in self.numbers()[:-KEEP]:
            if number not in kept:
                shutil.rmtree(self.root / RELEASES / f"{number:04d}", ignore_errors=True)
        for folder in (self.root / RELEASES).glob(".[0-9]*"):
            shutil.rmtree(folder)

    def note(self, **told: Any) -> None:
        """Add a line to the host's history."""
        path = self.root / HISTORY
        # A cut of the power can have left half a line.
        torn = not (read_text(path) or "\n").endswith("\n")
        with path.open("a", encoding="utf-8") as out:
            out.write("\n" * torn + json.dumps({"at": now(), **told}) + "\n")
            out.flush()
            os.fsync(out.fileno())

    # The chat API.

    def point(self, text: str, hold: float = 0) -> None:
        """Tell the chat API of its engine, and for how many seconds requests are to be held.

        They are held no longer than this process lives.
        """
        if hold:
            self.hold_lock.take()
            write(self.root / LIVE, f"{text}LLM_HOLD={hold:g}\n")
        else:
            write(self.root / LIVE, text)
            self.hold_lock.remove()

    def api(self, release: Release) -> str:
        """The socket of a release's chat API: of that process, whoever shares its ports."""
        return str(self.root / "run" / f"{release.service('api')}.sock")

    def ready(self, release: Release) -> Optional[Facts]:
        """What the chat API says at /ready; None where it does not answer."""
        keys = (self.root / "secrets/api_keys").read_text(encoding="utf-8").split()
        headers = {"Authorization": f"Bearer {keys[0]}"}
        try:
            _, report = ask(self.api(release), "GET", "/ready", headers, timeout=10)
        except (OSError, http.client.HTTPException):
            return None
        return report if isinstance(report, dict) and "in_flight" in report else None

    # Commands.

    def compose(
        self, folder: Path, *words: str, timeout: float = COMPOSE_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker compose` with a release's files; raises Failure where it fails."""
        try:
            done = self.docker.command(*self.compose_words(folder), *words, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"docker compose {words[0]} did not end within {timeout:g} s") from None
        if done.returncode != 0:
            raise Failure(
                f"docker compose {words[0]} failed: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done

    def compose_words(self, folder: Path) -> List[str]:
        return [
            *("compose", "--ansi", "never", "--project-directory", str(self.root)),
            *("--file", str(folder / COMPOSE), "--env-file", str(folder / ENV)),
        ]


# --- staging -------------------------------------------------------------------------------------


def sha256(text: str) -> str:
    """A text's SHA-256, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def slotted(text: str, slots: Mapping[str, str]) -> str:
    """A rendered file for the slots that its parts have."""
    for part, token in TOKENS.items():
        text = text.replace(token, slots[part])
    return text


def source(release: Release) -> Dict[str, str]:
    """A release's files by name, as they were rendered."""
    folder = release.folder / SOURCE
    if folder.is_dir():
        return {
            name: (folder / name).read_text(encoding="utf-8") for name in (COMPOSE, ENV, ENGINE)
        }
    texts = {}
    for name in (COMPOSE, ENV, ENGINE):
        text = (release.folder / name).read_text(encoding="utf-8")
        # Nowhere else: what looks like a slot there is somebody's name for something.
        for place in _FORMER_SLOTS.get(name, ()):
            text = re.sub(place, lambda found: found[1] + TOKENS[found["part"]], text)
        texts[name] = text
    # The only thing that is added to what was rendered, as the last line.
    texts[ENV] = re.sub(r"(?m)^DOOR_IMAGE=.*\n\Z", "", texts[ENV])
    return texts


def stage(host: Host, compose: str, env: str, engine: str, about: Facts) -> Release:
    """Write a release, with its images on the host; nothing that runs is touched.

    The files are as rendered, with TOKENS for slots. `about`: plan, by, start_timeout and
    drain_timeout (seconds), swap (auto, beside or one-by-one). A part that is as the current
    release has it keeps its slot, and so its container. Raises Failure.
    """
    current = host.current()
    number = max(host.numbers(), default=0) + 1
    folder = host.root / RELEASES / f".{number:04d}"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    rendered = {COMPOSE: compose, ENV: env, ENGINE: engine}
    (folder / SOURCE).mkdir(mode=0o700)
    for name, text in rendered.items():
        # On the disk with all the rest, by the sync before the release gets its name.
        (folder / SOURCE / name).write_text(text, encoding="utf-8")
    env += f"DOOR_IMAGE={_door_image(host, env, current)}\n"
    write(folder / ENV, env, 0o600)
    # What a part is does not depend on its slot, so all are compared for slot a.
    write(folder / COMPOSE, slotted(compose, dict.fromkeys(PARTS, "a")))
    _check_weights(host, about["plan"])
    key = key_hash(host)
    signatures = _signatures(host, folder, about["plan"], key)
    slots = {}
    for part in PARTS:
        slots[part] = "a"
        if current:
            same = signatures[part] == current.record["signatures"][part]
            slot = current.record["slots"][part]
            slots[part] = slot if same else {"a": "b", "b": "a"}[slot]
    texts = {COMPOSE: slotted(compose, slots), ENV: env, ENGINE: slotted(engine, slots)}
    record = {
        "number": number,
        "made": now(),
        **about,
        # As rendered, to tell whether another is asked; as written, whether a hand was on it.
        "rendered": {name: sha256(text) for name, text in rendered.items()},
        "written": {name: sha256(text) for name, text in texts.items()},
        "signatures": signatures,
        "engine_key": key,
        "slots": slots,
    }
    write(folder / COMPOSE, texts[COMPOSE])
    write(folder / ENGINE, texts[ENGINE])
    write(folder / RELEASE, json.dumps(record, indent=1) + "\n", 0o600)
    _bring_images(host, about["plan"]["engine"]["image"], _value(env, "API_IMAGE"))
    _check_memory(about, current, signatures)
    # Images, weights and keys, which others have written: a release's name says that all is there.
    os.sync()
    folder.rename(host.root / RELEASES / f"{number:04d}")
    sync_folder(host.root / RELEASES)
    return Release(host.root / RELEASES / f"{number:04d}", record)


def _value(env: str, name: str) -> str:
    return dict(line.split("=", 1) for line in env.splitlines() if "=" in line)[name]


def _door_image(host: Host, env: str, current: Optional[Release]) -> str:
    """The door stays the one that runs: another would let go of the sockets."""
    if current is None or not host.docker.running(DOOR):
        return _value(env, "API_IMAGE")
    return _value((current.folder / ENV).read_text(encoding="utf-8"), "DOOR_IMAGE")


def make_engine_key(host: Host, owner: int) -> None:
    """See to it that the engine's key is there, for the containers' user (`owner`) alone.

    Made on the host, and known to nobody else: only the chat API speaks to the engine. A cut of the
    power can leave an empty file.
    """
    path = host.root / ENGINE_KEY
    if not (read_text(path) or "").strip():
        write(path, secrets.token_hex(20) + "\n", 0o600)
    path.chmod(0o600)
    os.chown(path, owner, owner)


def key_hash(host: Host) -> str:
    """SHA-256 of the engine's key: an engine that has started with another must start anew."""
    return sha256(read_text(host.root / ENGINE_KEY) or "")


def _signatures(host: Host, folder: Path, plan: Facts, key: str) -> Dict[str, str]:
    """What each part is, as one hash: as compose understands the files, weights and key."""
    config = json.loads(host.compose(folder, "config", "--format", "json").stdout)
    services = config["services"]
    parts = {
        "engine": [services["engine-a"], plan["model"]["digest"], key],
        "api": [services["api-a"]],
    }
    return {
        part: hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()
        for part, each in parts.items()
    }


def _check_weights(host: Host, plan: Facts) -> None:
    """Raise Failure where the weights are not on the host, verified and known to the engine."""
    model = plan["model"]
    models = host.root / "models"
    found = read_models(models)
    if "files" not in model:
        raise Failure("it was made by another version of this project; run site.yml instead")
    for file in model["files"]:
        there = found.get(file["path"]) or {}
        if (there.get("size"), there.get("recorded_sha256")) != (file["size"], file["sha256"]):
            raise Failure(
                f"the weights {file['path']} are not on the host, verified; run site.yml, which"
                " brings them"
            )
    hashes = [file["sha256"] for file in model["files"]]
    if plan["provider"] == "ollama" and read_ollama(models).get(model["name"]) != hashes:
        raise Failure(
            f"Ollama does not know {model['name']} on the host; run site.yml with it asked"
        )


def _bring_images(host: Host, engine: str, api: str) -> None:
    if not host.docker.has_image(api):
        raise Failure(f"The chat API's image {api} is not on the host.")
    if not host.docker.has_image(engine):
        done = host.docker.command("pull", "--quiet", engine, timeout=None)
        if done.returncode != 0:
            raise Failure(f"The engine's image {engine} could not be pulled: {done.stderr.strip()}")


def _available() -> int:
    return parse_meminfo(read_text(Path("/proc/meminfo")) or "")[1] or 0


def _own(plan: Facts) -> int:
    """What an engine takes for itself: the plan's need without the system's."""
    return int(plan["memory"]["total"] - plan["memory"]["system"])


def _check_memory(about: Facts, current: Optional[Release], signatures: Facts) -> None:
    """Raise Failure where the engine does not fit, even once the old one has gone."""
    if current and signatures["engine"] == current.record["signatures"]["engine"]:
        return
    need, free = _own(about["plan"]), _available()
    freed = _own(current.plan) if current else 0
    if need > free + freed:
        holders = gpu_holders()
        raise Failure(
            f"{about['plan']['model']['name']} needs {need // MIB} MiB, and the host has"
            + f" {free // MIB} MiB"
            + (f" free and {freed // MIB} MiB in the engine that would stop" if freed else " free")
            + (f"; the GPU's memory is also held by {', '.join(holders)}" if holders else "")
            + "; stop what else uses memory, or choose a smaller llm_model."
        )


def started_again(state: Facts) -> str:
    """When a container that ended was started again, and has written since; "" where it waits.

    Of one that waits to be started again Docker says that it runs, and when it did before.
    """
    started: str = state["StartedAt"]
    return started if state["Running"] and not state["Restarting"] else ""


def gpu_holders(proc: Path = Path("/proc")) -> List[str]:
    """Processes of the host that hold a Jetson's GPU memory, as `name (pid N)`."""
    found = []
    for process in proc.glob("[0-9]*"):
        if "/dev/nvmap" in open_files(process):
            found.append(f"{(read_text(process / 'comm') or '').strip()} (pid {process.name})")
    return sorted(found)


# --- the change ----------------------------------------------------------------------------------


class Proof:
    """The proof of a release's engine, by the chat API's own code, before any client meets it."""

    def __init__(self, host: Host, release: Release) -> None:
        self._host = host
        self._release = release
        self._name = release.container("engine")
        self._complaint = tempfile.TemporaryFile()  # noqa: SIM115 - it goes with this object
        self._restarts = self._engine()["RestartCount"]
        write(host.root / NEXT, release.engine_file)
        host.docker.remove(PROOF)
        plan = release.plan
        asked = {
            "provider": plan["provider"],
            "model": plan["model"]["name"],
            "context-size": plan["environment"]["CTX_SIZE"],
            "parallel": plan["environment"]["PARALLEL"],
            "timeout": release.record["start_timeout"],
            "prompt": plan["model"]["proof"]["prompt"],
            "answer": plan["model"]["proof"]["answer"],
        }
        self._process = subprocess.Popen(
            [
                "docker", *host.compose_words(release.folder),
                "run", "--rm", "--no-deps", "-T", "--name", PROOF, "--entrypoint", "python",
                release.service("api"), "-m", "llm_provider", "check", "--json",
                "--engine", "/run/engine/next.env",
                *(f"--{name}={value}" for name, value in asked.items() if value),
            ],
            env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._complaint,
        )  # fmt: skip
        self._out = b""
        self._said = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        # Its one line is enough: its container takes a while to go, in which clients would wait.
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._out = self._process.stdout.readline()
        self._said.set()

    def result(self) -> None:
        """Wait for what it says. Raises Failure with what it saw, or what became of the engine."""
        end = time.monotonic() + self._release.record["start_timeout"] + COMPOSE_SECONDS
        while not self._said.wait(0.5):
            self._still_there()
            if time.monotonic() > end:
                raise Failure("the proof did not end in time", self._log())
        try:
            report = json.loads(self._out)
            checks = report["checks"]
        except (ValueError, KeyError, TypeError):
            self._still_there()
            self.end()
            self._complaint.seek(0)
            words = (self._complaint.read() or self._out).decode(errors="replace").strip()
            raise Failure(f"the proof could not be run: {words}", self._log()) from None
        failed = [each for each in checks if not each["ok"]]
        if failed or not checks:
            self._still_there()
            told = "; ".join(
                f"{each['name']}: wanted {each['wanted']}, saw {each['seen']}" for each in failed
            )
            raise Failure(f"the proof failed: {told or 'nothing was checked'}", self._log())
        self._prove_gpu(report.get("gpu_share"))

    def end(self) -> None:
        """Be sure that nothing of it runs on."""
        self._host.docker.remove(PROOF)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _engine(self) -> Facts:
        found = self._host.docker.container(self._name)
        if found is None:
            raise Failure(f"the container {self._name} is gone")
        return found

    def _still_there(self) -> None:
        found = self._engine()
        state = found["State"]
        restarted = found["RestartCount"] > self._restarts
        if state["Running"] and not state["Restarting"] and not restarted:
            return
        # Docker may have started it again by now, and then tells of that.
        why = [f"exit status {state['ExitCode']}"] if state["ExitCode"] else []
        why += ["out of memory"] if state.get("OOMKilled") else []
        told = f" ({', '.join(why)})" if why else ""
        lines = self._host.docker.lines(self._name, started_again(state) if restarted else "")
        # An engine that cannot use its GPU may end by that, before anything of it can be verified.
        reason = gpu_reason(lines) if self._release.plan["gpu"]["required"] else None
        told += f". {explain(reason)}" if reason else ""
        raise Failure(f"the engine ended while it started{told}", "\n".join(lines[-_LOG_LINES:]))

    def _log(self) -> str:
        return self._host.docker.log(self._name)

    def _prove_gpu(self, share: Optional[float]) -> None:
        """Raise Failure unless its layers are on the GPU; `share` is what Ollama tells of that."""
        plan = self._release.plan
        gpu = plan["gpu"]
        if not gpu["required"]:
            return
        found = self._engine()
        seen = {"id": found["Id"], "started_at": found["State"]["StartedAt"]}
        log = read_engine_log("docker", seen)
        problem = gpu_problem(gpu, plan["provider"], log, share)
        if problem:
            raise Failure(f"the proof failed: {problem}", self._log())


class Change:
    """One change from the current release to another, and back where it fails."""

    def __init__(self, host: Host, to: Release) -> None:
        self.host, self.docker, self.to = host, host.docker, to
        self.before = host.current()
        self.beside = False
        self.pause = 0.0
        self._held_at: Optional[float] = None
        self._steps: List[Tuple[str, float]] = []
        self._begun = time.monotonic()

    def changes(self, part: str) -> bool:
        """Whether a part is another than the one that runs, or does not run."""
        if self.before is None or self.before.container(part) != self.to.container(part):
            return True
        return not self.docker.running(self.to.container(part))

    def run(self, action: str) -> Facts:
        """Change over. Returns what became of it: outcome is committed, restored or failed."""
        told: Facts = {
            "action": action,
            "from": self.before.number if self.before else None,
            "to": self.to.number,
            "by": self.to.record["by"],
            "provider": self.to.plan["provider"],
            "model": self.to.plan["model"]["name"],
            "parts": [part for part in PARTS if self.changes(part)],
        }
        if "as" in self.to.record:
            told["as"] = self.to.record["as"]
        try:
            self._run()
            told["outcome"] = "committed"
        except Failure as failure:
            told.update(outcome="restored", reason=str(failure), log=failure.log)
            try:
                self._go_back()
            except Failure as second:
                told.update(outcome="failed", restore_reason=str(second), restore_log=second.log)
        told["beside"] = self.beside
        told["pause"] = round(self.pause, 3)
        ends = [*(moment for _, moment in self._steps[1:]), time.monotonic()]
        told["steps"] = {
            name: round(end - moment, 3)
            for (name, moment), end in zip(self._steps, ends)  # noqa: B905
        }
        told["seconds"] = round(ends[-1] - self._begun, 3)
        self.host.note(**told)
        if told["outcome"] != "failed":
            (self.host.root / JOURNAL).unlink()
            sync_folder(self.host.root)
        self.host.prune()
        return told

    def _step(self, name: str) -> None:
        self._steps.append((STEPS[STEPS.index(name)], time.monotonic()))
        journal = self.host.root / JOURNAL
        if journal.exists():
            # For people, so it need not reach the disk; added, so that what stands there stays.
            with journal.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
        self.host.watch(name)

    def _run(self) -> None:
        host, to = self.host, self.to
        engine, api = self.changes("engine"), self.changes("api")
        self._step("begin")
        before = self.before.number if self.before else None
        journal = {"from": before, "to": to.number, "by": to.record["by"], "since": now()}
        previous = host.previous()
        if previous:
            journal["previous"] = previous.number
        write(host.root / JOURNAL, json.dumps(journal) + "\n")
        if self.before is None:
            # What is there is no release's: an earlier try's.
            clean(host, None)
            host.point(to.engine_file, to.hold)
        self._step("create")
        fresh = [to.service(part) for part, new in (("engine", engine), ("api", api)) if new]
        if fresh:
            host.compose(to.folder, "create", *fresh)
        open_door(host, to)
        if engine:
            self._change_engine()
        if api:
            self._change_api()
        self._step("check")
        self._check()
        self._step("commit")
        host.commit(to)
        self._step("leave")
        if engine and self.before:
            # Beside the new engine, the old one finishes what it had begun.
            until(lambda: not (host.ready(to) or {}).get("leaving"), to.record["drain_timeout"])
        self._step("clean")
        clean(host, to)

    def _change_engine(self) -> None:
        host, docker, to, before = self.host, self.docker, self.to, self.before
        container = to.container("engine")
        self.beside = before is None or fits_beside(to)
        if self.beside:
            self._step("load")
            docker.start(container)
        proof = Proof(host, to)
        try:
            if self.beside:
                self._step("prove")
                proof.result()
            elif before:
                self._step("hold")
                self._hold(before)
                self._step("drain")
                self._drain(before)
                self._step("stop")
                docker.stop(before.container("engine"), 10)
                self._step("start")
                docker.start(container)
                self._step("prove")
                proof.result()
            self._step("point")
            begun = self._held_at or time.monotonic()
            host.point(to.engine_file)
            if before and docker.running(before.container("api")):
                self._pointed(before, to)
                self.pause = time.monotonic() - begun
                self._held_at = None
        finally:
            proof.end()

    def _pointed(self, api: Release, to: Release) -> None:
        """Wait until the chat API of `api` has its requests go to the engine of `to`."""
        url = _value(to.engine_file, "LLM_BASE_URL")

        def there() -> bool:
            report = self.host.ready(api) or {}
            return bool(report.get("ready") and report.get("engine") == url)

        if not until(there, 30, lambda: self.docker.running(api.container("api"))):
            raise Failure(
                f"the chat API did not go over to {url} within 30 s: {self.host.ready(api)}"
            )

    def _hold(self, release: Release) -> None:
        self._held_at = time.monotonic()
        # Also for the way back, should the new engine not come.
        self.host.point(release.engine_file, self.to.hold + release.hold)
        wait_for_hold(self.host, release)

    def _drain(self, release: Release) -> None:
        """Wait until nothing runs; what still does after the time allowed is cut off."""
        until(
            lambda: not (self.host.ready(release) or {}).get("in_flight"),
            self.to.record["drain_timeout"],
        )

    def _change_api(self) -> None:
        host, docker, to, before = self.host, self.docker, self.to, self.before
        self._step("answer")
        docker.start(to.container("api"))
        wait_for_api(host, to)
        if before is None or before.container("api") == to.container("api"):
            return
        self._step("hand over")
        begun = time.monotonic()
        hand_over(host, before, to)
        self.pause = max(self.pause, time.monotonic() - begun)

    def _check(self) -> None:
        """The chat API that clients reach serves this release, and Docker finds both parts well."""
        self._pointed(self.to, self.to)

        def well() -> bool:
            found = [self.docker.container(self.to.container(part)) for part in PARTS]
            return all(each and each["State"]["Health"]["Status"] == "healthy" for each in found)

        def there() -> bool:
            return all(self.docker.running(self.to.container(part)) for part in PARTS)

        if not until(well, 60, there):
            raise Failure(
                f"Docker does not find {' and '.join(map(self.to.container, PARTS))} healthy"
            )

    def _go_back(self) -> None:
        """Bring the release before back, and prove it; twice, for the first try may lack memory."""
        if self.before is None:
            clean(self.host, None)
            return
        try:
            restore(self.host, self.before, prove=True)
        except Failure:
            free_memory()
            restore_or_tell(self.host, self.before, prove=True)


def until(
    condition: Callable[[], Any], seconds: float, alive: Callable[[], Any] = lambda: True
) -> bool:
    """Wait until a condition holds; whether it did within `seconds`.

    Given up as soon as `alive` says that what is waited for cannot do it any more.
    """
    end = time.monotonic() + seconds
    while not condition():
        # It may have done so at the very last.
        if time.monotonic() > end or not (alive() or condition()):
            return False
        time.sleep(_POLL_SECONDS)
    return True


def fits_beside(to: Release) -> bool:
    """Whether the new engine may load while the old one still serves."""
    swap = to.record["swap"]
    return bool(
        swap == "beside" or (swap == "auto" and _available() >= _own(to.plan) + _SPARE_MEMORY)
    )


def open_door(host: Host, release: Release) -> None:
    """See to it that the door is there; one that runs is never touched, whatever has changed."""
    if not host.docker.running(DOOR):
        host.compose(release.folder, "up", "--detach", "--no-deps", "door")


def wait_for_api(host: Host, release: Release) -> None:
    """Wait until a release's chat API process answers. Raises Failure where it ends, or is late."""
    name = release.container("api")
    if not until(
        lambda: host.ready(release) is not None,
        release.record["start_timeout"],
        lambda: host.docker.running(name),
    ):
        raise Failure(f"the chat API {name} does not answer", host.docker.log(name))


def wait_for_hold(host: Host, release: Release) -> None:
    """Wait until a release's chat API holds requests, as the engine file says, where it runs."""
    until(
        lambda: (host.ready(release) or {}).get("holding"),
        SIGNAL_SECONDS,
        lambda: host.docker.running(release.container("api")),
    )


def wait_for_retirement(host: Host, release: Release, seconds: float) -> None:
    """Wait until a chat API that was told to retire has answered all that came to it.

    It removes its socket then. One that has ended may have left it behind.
    """
    socket_file = Path(host.api(release))
    until(
        lambda: not socket_file.exists(),
        seconds,
        lambda: host.docker.running(release.container("api")),
    )


def hand_over(host: Host, old: Release, new: Release) -> None:
    """Have the chat API of `old` finish what it has and leave the sockets to that of `new`.

    While it does, the new one holds: two would ask more of the engine than it has slots for.
    """
    live = re.sub(r"(?m)^LLM_HOLD=.*\n", "", (host.root / LIVE).read_text(encoding="utf-8"))
    container, socket_file = old.container("api"), Path(host.api(old))

    def runs() -> bool:
        return host.docker.running(container)

    if runs():
        # One that Docker has just started, as after a power cut, is deaf to a signal until it
        # answers: as its container's first process it would lose it, and be waited for in vain.
        until(lambda: not socket_file.exists() or host.ready(old) is not None, SIGNAL_SECONDS, runs)
        host.point(live, new.hold)
        wait_for_hold(host, new)
        if not host.docker.running(new.container("api")):
            name = new.container("api")
            raise Failure(f"the chat API {name} ended before its turn", host.docker.log(name))
        host.docker.kill(container, "USR1")
        wait_for_retirement(host, old, new.record["drain_timeout"])
    # What is not finished by now is told, and gets the time of a stop.
    host.docker.stop(container, STOP_SECONDS)
    # It is its container's, which may have ended without removing it.
    if socket_file.exists():
        socket_file.unlink()
    host.point(live)


def hand_over_seconds(new: Release) -> float:
    """The most that `hand_over` waits."""
    return 2 * SIGNAL_SECONDS + float(new.record["drain_timeout"]) + STOP_SECONDS


def clean(host: Host, release: Optional[Release]) -> None:
    """Remove the containers of all other releases; of all, where there is none."""
    kept = {DOOR, *(release.container(part) for part in PARTS)} if release else set()
    for name in host.docker.ours():
        if name not in kept:
            host.docker.remove(name)
    host.docker.remove(PROOF)


def free_memory() -> None:
    """Have the kernel give back what it can: a GPU's memory must be in one piece."""
    os.sync()
    for name in ("drop_caches", "compact_memory"):
        try:
            Path("/proc/sys/vm", name).write_text("1" if name == "compact_memory" else "3")
        except OSError:  # not every kernel has both
            continue


def restore(host: Host, release: Release, prove: bool = False) -> None:
    """Bring the host to a release that was current, from whatever state. Raises Failure."""
    docker = host.docker
    engine, api = release.container("engine"), release.container("api")
    host.watch("restore")
    missing = [
        release.service(part) for part in PARTS if not docker.container(release.container(part))
    ]
    if missing:
        host.compose(release.folder, "create", *missing)
    open_door(host, release)
    if not docker.running(engine):
        host.point(release.engine_file, release.hold)
        # Their memory is needed.
        for name, service in docker.ours().items():
            if service.startswith("engine") and name != engine:
                docker.remove(name)
        docker.start(engine)
    if prove:
        proof = Proof(host, release)
        try:
            proof.result()
        finally:
            proof.end()
    host.watch("restore point")
    host.point(release.engine_file)
    if not docker.running(api):
        docker.start(api)
    wait_for_api(host, release)
    for name, service in docker.ours().items():
        if service.startswith("api") and name != api and docker.running(name):
            host.watch("restore hand over")
            other = Release(
                release.folder, {**release.record, "slots": {"engine": "a", "api": service[-1]}}
            )
            hand_over(host, other, release)
    host.watch("restore clean")
    clean(host, release)


def restore_seconds(release: Optional[Release]) -> float:
    """The most that `recover` takes with a release, by its own waits: systemd's limit for it."""
    # Docker is asked often and answers at once; where it does not, the first time ends it all.
    docker = 2 * DOCKER_SECONDS
    if release is None:
        return docker
    compose = 2 * COMPOSE_SECONDS  # create, and the door's up
    return compose + float(release.record["start_timeout"]) + hand_over_seconds(release) + docker


def restore_or_tell(host: Host, release: Release, prove: bool = False) -> None:
    """Restore; where that fails nothing is left to try, and requests are not held any more.

    They go to the engine of that release where it is ready, and are refused otherwise. Raises
    Failure.
    """
    try:
        restore(host, release, prove)
    except Failure:
        host.point(release.engine_file)
        raise


def recover(host: Host) -> Optional[Facts]:
    """Undo what a change left that was killed, or cut from its power; start what is stopped.

    Returns what was done, or None where there was nothing to do. Raises Failure.
    """
    journal = read_journal(host.root)
    release = host.current()
    if release is None:
        if journal is None:
            return None
        clean(host, None)
    elif journal is None and all(
        map(host.docker.running, [DOOR, *(release.container(part) for part in PARTS)])
    ):
        return None
    else:
        # Requests that the change held go on waiting, now for this process.
        host.hold_lock.take()
        try:
            restore_or_tell(host, release)
        finally:
            host.hold_lock.release()
    if journal is None:
        return None
    if release and release.number == journal.get("from") and journal.get("previous"):
        # The cut may have come between the two links of the commit.
        host.link("previous", f"{RELEASES}/{journal['previous']:04d}")
    went_on = release is not None and release.number == journal.get("to")
    told = {
        "action": "recover",
        "from": journal.get("to"),
        "to": release.number if release else None,
        "outcome": "removed" if release is None else "committed" if went_on else "restored",
        "reason": f"the change to release {journal.get('to')} was cut short at:"
        f" {journal.get('step')}",
    }
    host.watch("restore end")
    host.note(**told)
    (host.root / JOURNAL).unlink()
    sync_folder(host.root)
    return told


def change(host: Host, number: int, action: str) -> Facts:
    """Change over to a release that is there; see `Change.run`."""
    to = host.release(number)
    if to is None:
        raise Failure(f"release {number} is not on the host")
    return Change(host, to).run(action)


def former(host: Host, number: Optional[int] = None) -> Facts:
    """What `stage` is told to make a release again what it was: the one before, or a number's."""
    release = host.release(number) if number else host.previous()
    current = host.current()
    if release is None or current is None:
        asked = f"release {number}" if number else "the release before"
        there = ", ".join(map(str, host.numbers())) or "none"
        raise Failure(f"{asked} was asked, and is not on the host; there are: {there}")
    if release.number == current.number:
        raise Failure(f"release {number} was asked, and the host runs it")
    texts = source(release)
    kept = ("plan", "start_timeout", "drain_timeout", "swap")
    return {
        "compose": texts[COMPOSE],
        "env": texts[ENV],
        "engine": texts[ENGINE],
        "about": {**{name: release.record[name] for name in kept}, "as": release.number},
    }


# --- for Ansible -------------------------------------------------------------------------------


def same(before: Optional[Release], asked: Facts, key: str) -> Optional[Release]:
    """The current release, where it is what is asked and nobody has written in its files.

    `key` is the hash of the engine's key as it is now.
    """
    if before is None or asked["action"] == "rollback":
        return None
    texts = {COMPOSE: asked["compose"], ENV: asked["env"], ENGINE: asked["engine"]}
    there = {name: sha256((before.folder / name).read_text(encoding="utf-8")) for name in texts}
    rendered = {name: sha256(text) for name, text in texts.items()}
    model = asked["about"]["plan"]["model"]["digest"]
    if before.record["rendered"] != rendered or before.record["written"] != there:
        return None
    if before.record["engine_key"] != key:
        return None
    return before if before.plan["model"].get("digest") == model else None


def difference(before: Optional[Release], asked: Facts) -> List[Dict[str, str]]:
    """What differs in the files, as Ansible shows it."""
    found = []
    texts = source(before) if before else {}
    for name, text in ((COMPOSE, asked["compose"]), (ENV, asked["env"])):
        old = texts.get(name, "")
        if sha256(old) != sha256(text):
            found.append(
                {"before_header": name, "after_header": name, "before": old, "after": text}
            )
    return found


def outcome(lines: Sequence[Facts], number: int) -> Facts:
    """What became of a change, by the lines that the host's history has got since it began."""
    told = [each for each in lines if each["action"] != "recover"]
    recovered = [each for each in lines if each["action"] == "recover"]
    if told and not (recovered and told[-1]["outcome"] == "failed"):
        return told[-1]
    if recovered and recovered[-1]["to"] == number:
        # Cut short behind its commit: the host went on with it.
        none: Facts = {"from": None, "parts": [], "beside": False, "pause": 0.0, "seconds": 0.0}
        return {**none, "to": number, "outcome": "committed"}
    killed = told[-1] if told else {"to": number, "reason": "the change was killed"}
    return {**killed, "outcome": "restored" if recovered else "failed"}


def sentence(told: Facts, before: Optional[Release], to: Release) -> str:
    """Why the host failed, and what it serves now; each log on lines of its own."""
    lines = [f"{to} was not kept: {told['reason']}."]
    if told.get("log"):
        lines += ["Its engine said last:", str(told["log"])]
    if told["outcome"] == "restored":
        nothing = "Nothing ran here before, and nothing runs now."
        return "\n".join([*lines, f"{before} serves again, proven." if before else nothing])
    why = told.get("restore_reason", "it was killed")
    lines.append(f"{before} could not be put back either: {why}.")
    if told.get("restore_log"):
        lines += ["Its engine said last:", str(told["restore_log"])]
    lines.append(
        "The host serves nothing: clients get status 503. On the host, `systemctl restart"
        " edge-llm` tries again to bring that release back; or repair the inventory, and run this"
        " again."
    )
    return "\n".join(lines)


# --- on the host ---------------------------------------------------------------------------------


def recover_for_systemd(host: Host) -> None:
    """Recover as the unit that systemd bounds in time. Raises Failure."""
    while True:
        # Whoever changes the host now is not waited for in vain, however long that takes.
        extend(LOOK_SECONDS)
        try:
            with host.locked("the host itself", seconds=LOOK_SECONDS / 2):
                extend(restore_seconds(host.current()))
                told = recover(host)
            break
        except Busy:
            continue
    if told:
        print(told["reason"])
    ready()


def main(arguments: Sequence[str]) -> int:
    """`change NUMBER ACTION BY` or `restore`, under the lock; the answer is in the history."""
    host = Host(os.environ.get("EDGE_LLM_ROOT", ROOT))
    try:
        if arguments[0] == "change":
            with host.locked(arguments[3]):
                told = change(host, int(arguments[1]), arguments[2])
            return 0 if told["outcome"] == "committed" else 1
        recover_for_systemd(host)
        return 0
    except Failure as failure:
        print(f"edge-llm: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
