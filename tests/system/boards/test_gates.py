"""The gates of a run: each stops a host that does not serve what its plan says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.playing import client_file, message, play


@pytest.mark.parametrize(
    ("host", "variables", "sentence"),
    [
        (
            "jetson-01",
            {"llm_gpu_required": True},
            "jetson-01: the verification failed: 31 of 31 layers were asked onto the GPU, and the"
            " engine's log has none of an unknown number there, with model buffers on no GPU. The"
            " engine logged: warning: no usable GPU found, --gpu-layers option will be ignored."
            " Likely cause: the image's engine was built without a GPU backend, or the container"
            " has no access to the GPU.",
        ),
        (
            "pi-01",
            {"verify_answer": "Nonsense."},
            "pi-01: the verification failed: chat: expected",
        ),
        (
            "pi-01",
            {"verify_api_key": "not-the-key-of-this-host"},
            "pi-01: the verification failed: ready: expected",
        ),
    ],
)
def test_a_proof_that_fails_fails_the_host(
    host: str, variables: dict[str, object], sentence: str
) -> None:
    done = play("playbooks/verify.yml", host, **variables)
    assert done.returncode == 2, done.stdout
    assert sentence in message(done)
    assert "failed=1" in done.stdout
    assert "changed=0" in done.stdout


@pytest.mark.parametrize("host", ["jetson-01", "pi-01"])
def test_the_proof_alone_passes(host: str) -> None:
    done = play("playbooks/verify.yml", host)
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout


def test_a_check_run_tells_of_a_swap_and_does_nothing() -> None:
    done = play("site.yml", "pi-01", "--check", "--diff", llm_provider="llamacpp")
    assert done.returncode == 0, done.stdout
    assert "-LLM_PROVIDER=ollama +LLM_PROVIDER=llamacpp" in message(done)
    assert "Would switch to llamacpp with smollm2-135m" in message(done)
    after = play("site.yml", "pi-01")
    assert after.returncode == 0, after.stdout
    assert "changed=0" in after.stdout


def test_a_changed_key_is_taken_in_without_a_restart(host: Any, plan: dict[str, Any]) -> None:
    name, key = plan["host"], "a-key-that-was-just-changed"
    guest = {"key": "a-key-that-is-not-valid-any-more", "expires": "2020-01-01"}
    running = "docker ps --no-trunc --format '{{.ID}} {{.Status}}' | cut -d' ' -f1"
    before = host.check_output(running)
    done = play("site.yml", name, llm_api_key=key, llm_api_keys={"guest": guest})
    try:
        assert done.returncode == 0, done.stdout
        assert key not in done.stdout
        assert guest["key"] not in done.stdout
        assert "the key guest expired at 2020-01-01T00:00:00Z: it is refused." in message(done)
        assert f"OPENAI_API_KEY={key}\n" in client_file(name).read_text()
        assert host.check_output(running) == before
    finally:
        again = play("site.yml", name)
    assert again.returncode == 0, again.stdout
    assert key not in client_file(name).read_text()
    assert host.check_output(running) == before
