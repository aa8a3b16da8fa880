"""Models for embeddings and reranking: how their engines are started, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edge_fleet.plan.build import deployment_plan
from edge_fleet.plan.memory import VOCABULARY_ENTRY, MemoryEstimate
from tests.unit.edge_fleet.conftest import OWN_IMAGE

EMBEDDING, RERANK = "nomic-embed-text-v1.5", "bge-reranker-v2-m3"
MIB = 1024**2
HF = {
    "repository": "example/model",
    "revision": "1",
    "quantization": "F16",
    "family": "bert",
    "files": [{"file": "model.safetensors", "size": 1, "sha256": "a" * 64}],
}


@pytest.fixture
def more(catalogues: dict[str, Any]) -> dict[str, Any]:
    """The catalogues, with models that vLLM serves and an embedding model of a long context."""
    changed = copy.deepcopy(catalogues)
    models = changed["models"]
    models["long"] = copy.deepcopy(models[EMBEDDING])
    models["long"]["shape"]["context_trained"] = 8192
    for name in (EMBEDDING, RERANK):
        models[name]["hf"] = HF
    return changed


def planned(
    state: dict[str, Any], catalogues: dict[str, Any], provider: str, model: str, **given: Any
) -> dict[str, Any]:
    variables = {"llm_provider": provider, "llm_model": model, "llm_image": OWN_IMAGE, **given}
    return deployment_plan(state, "orin", variables, catalogues)


def problem(
    state: dict[str, Any], catalogues: dict[str, Any], provider: str, model: str, **given: Any
) -> str:
    (found,) = planned(state, catalogues, provider, model, **given)["problems"]
    assert isinstance(found, str)
    return found


SIZES = ("CTX_SIZE", "PARALLEL", "BATCH", "UBATCH")


@pytest.mark.parametrize(
    ("provider", "model", "sizes", "started_with"),
    [
        ("llamacpp", EMBEDDING, (2048, 4, 2048, 2048), ["LLAMA_ARG_EMBEDDINGS"]),
        ("llamacpp", RERANK, (4096, 4, 4096, 4096), ["LLAMA_ARG_RERANKING"]),
        ("ollama", EMBEDDING, (2048, 1, 2048, 2048), []),
        ("ollama", "long", (2048, 1, 2048, 2048), []),
        ("vllm", EMBEDDING, (2048, 4, 2048, 2048), ["--runner=pooling", "--convert=embed"]),
        ("vllm", RERANK, (4096, 4, 4096, 4096), ["--runner=pooling", "--convert=classify"]),
    ],
)
def test_an_engine_is_started_for_the_task(
    jetson: dict[str, Any],
    more: dict[str, Any],
    provider: str,
    model: str,
    sizes: tuple[int, ...],
    started_with: list[str],
) -> None:
    plan = planned(jetson, more, provider, model)
    assert plan["problems"] == []
    assert tuple(plan["environment"][name] for name in SIZES) == sizes
    rules = more["engines"][provider]
    added = plan["engine"]["command"][len(rules["command"]) :]
    added += [name for name in plan["engine"]["variables"] if name not in rules["environment"]]
    assert [each for each in added if each != "JETSON_JETPACK"] == started_with
    task = more["models"][model]["task"]
    assert plan["model"]["task"] == task
    assert plan["model"]["dimensions"] == (768 if task == "embedding" else None)


def test_a_chat_model_is_served_as_before(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    plan = planned(jetson, catalogues, "llamacpp", "smollm2-135m")
    assert (plan["model"]["task"], plan["model"]["dimensions"]) == ("chat", None)
    assert tuple(plan["environment"][name] for name in SIZES) == (4096, 4, 2048, 512)
    assert set(plan["engine"]["variables"]) == set(catalogues["engines"]["llamacpp"]["environment"])


def test_a_context_by_default_is_not_longer_than_trained(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    changed = copy.deepcopy(catalogues)
    changed["models"]["smollm2-135m"]["shape"]["context_trained"] = 2048
    plan = planned(jetson, changed, "llamacpp", "smollm2-135m")
    assert plan["environment"]["CTX_SIZE"] == 2048
    found = problem(jetson, changed, "llamacpp", "smollm2-135m", llm_context_size=4096)
    assert found.startswith("orin: llm_context_size does not fit: 4096, and smollm2-135m was")


def test_an_encoder_has_no_cache(jetson: dict[str, Any], more: dict[str, Any]) -> None:
    for provider in ("llamacpp", "ollama", "vllm"):
        plan = planned(jetson, more, provider, EMBEDDING)
        assert plan["memory"]["kv_cache"] == 0
        # vLLM would take 0 for no figure, and most of the memory.
        assert plan["environment"]["KV_CACHE_BYTES"] == MIB


def shape(embedding: int, feed_forward: int, heads: int) -> dict[str, int]:
    widths = {"embedding": embedding, "feed_forward": feed_forward, "heads": heads}
    counts = {"layers": 4, "kv_heads": heads, "head_size": embedding // heads, "vocabulary": 30522}
    return widths | counts


@pytest.mark.parametrize(
    ("family", "widths", "context", "flash_attention", "said"),
    [
        ("bert", (384, 1536, 12), 512, "auto", 8.02),
        ("bert", (384, 1536, 12), 2048, "auto", 38.08),
        ("bert", (768, 3072, 12), 1024, "auto", 32.04),
        ("bert", (1024, 4096, 16), 512, "auto", 20.52),
        ("bert", (1024, 4096, 16), 4096, "auto", 192.11),
        ("bert", (384, 1536, 12), 1024, "off", 62.54),
        ("bert", (768, 3072, 12), 512, "off", 23.52),
        ("nomic-bert", (768, 3072, 12), 512, "auto", 26.02),
        ("nomic-bert", (768, 3072, 12), 2048, "auto", 110.08),
        ("nomic-bert", (768, 3072, 12), 512, "off", 26.52),
    ],
)
def test_what_llama_server_reserves_for_encoders(
    catalogues: dict[str, Any],
    family: str,
    widths: tuple[int, int, int],
    context: int,
    flash_attention: str,
    said: float,
) -> None:
    """`compute buffer size` in the log of b11669, with 4 slots and as large a micro-batch."""
    rules = catalogues["engines"]["llamacpp"]
    estimate = MemoryEstimate(shape(*widths), 1, rules, family=family, whole=True)
    found = estimate.parts(context, 4, ubatch=64, flash_attention=flash_attention)
    assert found.compute / MIB == pytest.approx(said, rel=0.01)
    # Its output buffer is 0.47 MiB.
    assert found.engine - rules["process"] - 30522 * VOCABULARY_ENTRY == 4 * 30522 * 4


def test_ollama_does_not_rerank(jetson: dict[str, Any], more: dict[str, Any]) -> None:
    assert problem(jetson, more, "ollama", RERANK) == (
        f"orin: llm_model does not fit: {RERANK} is for rerank, and ollama serves models for chat,"
        " embedding only. Use llm_provider llamacpp or vllm, or another llm_model."
    )


def test_an_image_that_is_older_serves_chat_models(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    jetson["board"]["l4t"] = {"major": 36, "minor": 2, "patch": 0, "text": "36.2.0"}
    found = deployment_plan(jetson, "orin", {"llm_model": EMBEDDING}, catalogues)["problems"]
    assert found == [
        f"orin: llm_model does not fit: {EMBEDDING} is for embedding, and llamacpp with its image"
        " for this board serves models for chat only. Use llm_provider ollama, or another"
        " llm_model."
    ]


def test_an_engine_without_tasks_serves_chat_models(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    """As an engines.yml of an earlier version has them."""
    changed = copy.deepcopy(catalogues)
    for engine in changed["engines"].values():
        del engine["tasks"]
    assert planned(jetson, changed, "llamacpp", "smollm2-135m")["problems"] == []
    assert problem(jetson, changed, "llamacpp", RERANK) == (
        f"orin: llm_model does not fit: {RERANK} is for rerank, and llamacpp serves models for"
        " chat only. Use another llm_model."
    )


@pytest.mark.parametrize(
    ("provider", "model", "given", "sentence"),
    [
        (
            "ollama",
            "long",
            {"llm_context_size": 4096},
            "llm_context_size does not fit: 4096, and ollama reads at most 2048 tokens of an input."
            " Use at most 2048, or another llm_provider.",
        ),
        (
            "ollama",
            EMBEDDING,
            {"llm_parallel": 4},
            "llm_parallel does not fit: 4, and ollama computes 1 embedding at a time. Use 1.",
        ),
        (
            "llamacpp",
            EMBEDDING,
            {"llm_context_size": 1024, "llm_ubatch_size": 512},
            f"llm_ubatch_size does not fit: 512, and an input of {EMBEDDING} is computed at once,"
            " whose llm_context_size is 1024. Remove llm_ubatch_size, or use 1024.",
        ),
        (
            "llamacpp",
            RERANK,
            {"llm_batch_size": 8192},
            f"llm_batch_size does not fit: 8192, and an input of {RERANK} is computed at once,"
            " whose llm_context_size is 4096. Remove llm_batch_size, or use 4096.",
        ),
        (
            "llamacpp",
            EMBEDDING,
            {"llm_context_size": 4096},
            f"llm_context_size does not fit: 4096, and {EMBEDDING} was trained for 2048 tokens."
            " Use at most 2048.",
        ),
    ],
)
def test_sizes_that_contradict_the_task(
    jetson: dict[str, Any],
    more: dict[str, Any],
    provider: str,
    model: str,
    given: dict[str, Any],
    sentence: str,
) -> None:
    assert problem(jetson, more, provider, model, **given) == f"orin: {sentence}"


def test_sizes_that_are_the_tasks(jetson: dict[str, Any], catalogues: dict[str, Any]) -> None:
    given = {"llm_context_size": 1024, "llm_batch_size": 1024, "llm_ubatch_size": 1024}
    plan = planned(jetson, catalogues, "llamacpp", EMBEDDING, **given)
    assert plan["problems"] == []
    assert planned(jetson, catalogues, "ollama", EMBEDDING, llm_parallel=1)["problems"] == []


def test_what_fits_is_for_the_same_task(jetson: dict[str, Any], more: dict[str, Any]) -> None:
    """An input is computed at once, so a shorter one takes less."""
    jetson["board"]["memory_total"] = 1700 * MIB
    found = problem(jetson, more, "llamacpp", RERANK)
    assert "with llm_context_size 4096 and llm_parallel 4 it needs" in found
    offer = found.rpartition(" One of these would fit: ")[2]
    name, _, size = offer.rstrip(".").partition(": ")
    assert name == "llm_context_size"
    assert planned(jetson, more, "llamacpp", RERANK, llm_context_size=int(size))["problems"] == []
    more["models"]["small"] = copy.deepcopy(more["models"][RERANK])
    more["models"]["small"]["gguf"]["files"][0]["size"] //= 2
    assert problem(jetson, more, "llamacpp", RERANK).endswith("; llm_model: small.")


def test_a_chat_api_of_an_earlier_version_is_replaced_first(
    jetson: dict[str, Any], catalogues: dict[str, Any]
) -> None:
    """It follows the engine file before it is replaced, and would refuse LLM_TASK."""
    before = planned(jetson, catalogues, "llamacpp", "smollm2-135m")
    jetson["deployment"]["release"] = {"plan": copy.deepcopy(before)}
    assert planned(jetson, catalogues, "llamacpp", EMBEDDING)["problems"] == []
    del jetson["deployment"]["release"]["plan"]["model"]["task"]
    assert planned(jetson, catalogues, "llamacpp", "smollm2-135m")["problems"] == []
    assert problem(jetson, catalogues, "llamacpp", EMBEDDING) == (
        f"orin: llm_model does not fit: {EMBEDDING} is for embedding, and the chat API on the host"
        " is of a version that serves chat models only. Run site.yml with llm_model smollm2-135m"
        " first, which replaces the chat API."
    )


def test_suites_are_for_chat_models(jetson: dict[str, Any], more: dict[str, Any]) -> None:
    suites = {"llm_suite": ["chat", "tools"]}
    assert problem(jetson, more, "llamacpp", EMBEDDING, **suites) == (
        "orin: llm_suite does not fit: chat, tools, and nomic-embed-text-v1.5 is for embedding,"
        " while suites are conversations. Remove llm_suite, or use a chat model."
    )
    assert not planned(jetson, more, "llamacpp", "llama-3.2-3b-instruct", **suites)["problems"]
