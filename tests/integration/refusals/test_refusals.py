"""Bad input stops a host with one sentence, before anything on it changes, and no other host."""

from __future__ import annotations

import pytest

from tests.integration.refusals.conftest import BOARDS, Run, changes, failures, provision

SENTENCES = {
    "unknown-provider": "unknown-provider: llm_provider is invalid: 'lamacpp'. Did you mean"
    " llamacpp? Use auto, llamacpp, ollama or vllm.",
    "unknown-model": "unknown-model: llm_model is invalid: models.yml has no 'smollm3'. Did you"
    " mean smollm2-135m? Use bge-reranker-v2-m3, llama-3.2-1b-instruct, llama-3.2-3b-instruct,",
    "misspelt-variable": "misspelt-variable: llm_modle is invalid: the project has no variable"
    " of this name. Did you mean llm_model? docs/variables.md lists all variables.",
    "unlocked-model": "unlocked-model: llm_model llama-3.2-3b-instruct is invalid: models.yml has"
    " no size and no sha256 for its files, so a download could not be verified. Run `make lock"
    " MODEL=llama-3.2-3b-instruct`, which asks http://198.18.41.3.",
    "wrong-sha256": "wrong-sha256: smollm2-135m cannot be fetched: http://198.18.41.3/QuantFactory/",
    "no-hub": "no-hub: llama-3.2-1b-instruct cannot be fetched: http://198.18.41.3:81/",
    "no-such-file": "is missing: the source answered with status 404. Correct the entry in"
    " models.yml",
    "small-memory": "small-memory: llama-3.2-3b-instruct does not fit: with llm_context_size"
    " 131072 and llm_parallel 4 it needs",
    "small-disk": "small-disk: smollm2-135m does not fit: it needs 606 MiB of disk (94 MiB of"
    " weights and 512 MiB in reserve), and /opt has",
    "port-taken": "port-taken: port 8000 is in use by",
    "no-python": "no-python: the host has no python3, which is needed there; install Python 3.8",
    "other-system": "other-system: the host's system does not fit: Alpine Linux v3.20. Use debian",
}


@pytest.mark.parametrize("host", SENTENCES)
def test_the_host_is_stopped_with_the_sentence(run: Run, host: str) -> None:
    said = run.messages[host][-1]
    assert SENTENCES[host] in said
    assert "\n" not in said, "more than one sentence for one problem"
    assert run.stats[host]["failures"] == 1
    assert run.stats[host]["changed"] == 0


@pytest.mark.parametrize("board", BOARDS)
def test_nothing_on_the_board_changed(run: Run, board: str) -> None:
    assert run.after[board] == run.before[board]


def test_the_good_host_goes_on(run: Run) -> None:
    assert "pi-01" not in run.messages
    assert run.stats["pi-01"]["failures"] == 0
    assert run.stats["pi-01"]["changed"] == 0
    assert run.stats["pi-01"]["ok"] > 5


def test_the_exit_status_tells(run: Run) -> None:
    assert run.status == 2


def test_every_refused_host_was_looked_at(run: Run) -> None:
    assert set(run.stats) == {*SENTENCES, "pi-01"}


def test_a_tag_alone_is_safe_on_an_unprepared_host() -> None:
    before = changes("bare-01")
    status, output = provision("unprepared", "--tags", "stack")
    assert status == 2
    assert failures(output)["unprepared"][-1] == (
        "unprepared: Docker on the host is missing or not as planned, and this run leaves the role"
        " docker out. Run site.yml without --tags, or with --tags docker,weights,stack."
    )
    assert changes("bare-01") == before
