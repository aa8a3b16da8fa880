from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llm_provider import (
    ConfigurationError,
    EngineTimeoutError,
    LLMProvider,
    choose_provider,
    get_llm_provider,
)
from llm_provider.providers.settings import EngineSettings, Task

from ..fake import FakeEngine

JETSON_RELEASE = "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64\n"


def board(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("argument", "environ", "expected"),
    [
        ("vllm", {"LLM_PROVIDER": "ollama", "HARDWARE": "jetson"}, "vllm"),
        (None, {"LLM_PROVIDER": "vllm", "HARDWARE": "jetson"}, "vllm"),
        (None, {"LLM_PROVIDER": "", "HARDWARE": "jetson"}, "llamacpp"),
        (None, {"HARDWARE": "pi"}, "ollama"),
        (None, {"HARDWARE": "generic"}, "ollama"),
    ],
)
def test_order_of_choice(
    tmp_path: Path, argument: str | None, environ: dict[str, str], expected: str
) -> None:
    # The files say Jetson, and so decide only where nothing before them does.
    root = board(tmp_path, "etc/nv_tegra_release", JETSON_RELEASE)
    assert choose_provider(argument, environ=environ, root=root) == expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("etc/nv_tegra_release", JETSON_RELEASE, "llamacpp"),
        ("sys/firmware/devicetree/base/model", "NVIDIA Orin NX Developer Kit\0", "llamacpp"),
        ("proc/device-tree/model", "Jetson-AGX\0", "llamacpp"),
        ("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0", "ollama"),
        ("proc/device-tree/model", "Radxa ROCK 5B\0", "ollama"),
        ("etc/hostname", "laptop", "ollama"),
    ],
)
def test_detection(tmp_path: Path, name: str, text: str, expected: str) -> None:
    assert choose_provider(environ={}, root=board(tmp_path, name, text)) == expected


@pytest.mark.parametrize(
    ("argument", "environ", "sentence"),
    [
        (
            "lamacpp",
            {},
            "The provider is 'lamacpp', which is not known; known are: llamacpp, ollama, vllm.",
        ),
        (
            None,
            {"LLM_PROVIDER": "gpt"},
            "LLM_PROVIDER is 'gpt', which is not known; known are: llamacpp, ollama, vllm.",
        ),
        (
            None,
            {"HARDWARE": "toaster"},
            "HARDWARE is 'toaster', which is not known; known are: jetson, pi, generic.",
        ),
    ],
)
def test_unknown_names_are_errors_that_list_the_known(
    argument: str | None, environ: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        choose_provider(argument, environ=environ)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("environ", "task"),
    [
        ({}, Task.CHAT),
        ({"LLM_TASK": ""}, Task.CHAT),
        ({"LLM_TASK": "rerank"}, Task.RERANK),
    ],
)
def test_the_task_that_an_engine_was_started_for(environ: dict[str, str], task: Task) -> None:
    assert EngineSettings(environ).task == task


def test_an_unknown_task() -> None:
    with pytest.raises(ConfigurationError) as caught:
        _ = EngineSettings({"LLM_TASK": "embed"}).task
    assert str(caught.value) == "LLM_TASK is 'embed'; known are: chat, embedding, rerank."


async def key_sent(llm: LLMProvider, engine: FakeEngine) -> str | None:
    """The key that an engine hears; the provider's address is the engine's."""
    async with llm:
        await llm.models()
    return engine.requests[-1].headers.get("authorization")


async def test_arguments_win_over_the_environment(engine: FakeEngine) -> None:
    environ = {
        "LLM_PROVIDER": "llamacpp",
        "LLM_BASE_URL": "http://engine:8080/v1/",
        "LLM_MODEL": "smoke",
        "LLM_API_KEY": "abc",
    }
    llm = get_llm_provider(environ=environ)
    assert (llm.name, llm.base_url, llm.model) == ("llamacpp", "http://engine:8080", "smoke")
    llm = get_llm_provider(
        "ollama", base_url="http://pi:11434", model="other", api_key="xyz", environ=environ
    )
    assert (llm.name, llm.base_url, llm.model) == ("ollama", "http://pi:11434", "other")
    here = environ | {"LLM_BASE_URL": f"{engine.url}/v1"}
    assert await key_sent(get_llm_provider(environ=here), engine) == "Bearer abc"
    assert await key_sent(get_llm_provider(api_key="xyz", environ=here), engine) == "Bearer xyz"
    here["LLM_API_KEY"] = ""
    assert await key_sent(get_llm_provider(environ=here), engine) is None


async def test_the_silence_allowed(engine: FakeEngine) -> None:
    engine.on("/v1/chat/completions", lambda x: asyncio.sleep(60))
    environ = {"LLM_MODEL": "smoke", "LLM_TIMEOUT": "0.1", "LLM_BASE_URL": engine.url}
    environ["LLM_PROVIDER"] = "llamacpp"
    async with get_llm_provider(environ=environ) as llm:
        with pytest.raises(EngineTimeoutError):
            await asyncio.wait_for(llm.generate("Hello"), 10)
    async with get_llm_provider(environ=environ | {"LLM_TIMEOUT": "60"}, timeout=0.1) as llm:
        with pytest.raises(EngineTimeoutError):
            await asyncio.wait_for(llm.generate("Hello"), 10)


async def test_the_engines_key_from_a_file(tmp_path: Path, engine: FakeEngine) -> None:
    path = tmp_path / "engine_key"
    write, unlink = path.write_text, path.unlink
    write("from-a-file\n")
    environ = {"LLM_MODEL": "smoke", "LLM_API_KEY_FILE": str(path)}
    llm = get_llm_provider(environ=environ)
    assert llm.base_url == "http://127.0.0.1:11434"
    llm = get_llm_provider(environ=environ | {"LLM_BASE_URL": engine.url})
    assert await key_sent(llm, engine) == "Bearer from-a-file"
    write("\n")
    with pytest.raises(ConfigurationError, match="which holds no key"):
        get_llm_provider(environ=environ)
    unlink()
    with pytest.raises(ConfigurationError, match="LLM_API_KEY_FILE cannot be read"):
        get_llm_provider(environ=environ)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "No model is named; set LLM_MODEL or give model=."),
        ({"LLM_MODEL": "m", "LLM_BASE_URL": "engine:8080"}, "'engine:8080' is not usable"),
        ({"LLM_MODEL": "m", "LLM_BASE_URL": "http://e:99999999"}, "is not usable"),
        ({"LLM_MODEL": "m", "LLM_TIMEOUT": "soon"}, "LLM_TIMEOUT is 'soon'"),
        ({"LLM_MODEL": "m", "LLM_API_KEY": "a\nb"}, "characters that no header can"),
    ],
)
def test_settings_that_cannot_work(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        get_llm_provider(environ=environ)
