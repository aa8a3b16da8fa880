"""Which engine serves what, at which path of its own, and started for which task: the one table.

Read in llama.cpp b8708 and b11176 (tools/server/server.cpp), Ollama 0.33 and 0.34
(server/routes.go) and vLLM 0.32 (vllm/entrypoints). An older image may lack a route that its row
has: the engine's own 404 becomes Unsupported then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llm_provider.errors import Unsupported
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llm_provider.providers.settings import Task

_ANY = tuple(Task)
_EVERY = ("llamacpp", "ollama", "vllm")


@dataclass(frozen=True)
class Feature:
    """What a route of the chat API needs of an engine.

    `name` is a noun for sentences. `paths` are the engines' own paths by their names; an engine
    that is not among them lacks it. `tasks` are those of which one must be the engine's.
    """

    name: str
    paths: Mapping[str, str]
    tasks: tuple[Task, ...] = (Task.CHAT,)

    def path(self, engine: str, task: Task) -> str:
        """Return the path at which an engine serves it. Raises Unsupported where it does not."""
        if engine not in self.paths:
            raise Unsupported(
                f"{engine} does not offer {self.name}. "
                f"It is served where the engine is {' or '.join(self.paths)}."
            )
        if task not in self.tasks:
            needed = " or ".join(each.value for each in self.tasks)
            raise Unsupported(
                f"{engine} was started for {task.value} and does not offer {self.name}. "
                f"It is served where the engine is started with LLM_TASK={needed}."
            )
        return self.paths[engine]


def _same(path: str, engines: tuple[str, ...] = _EVERY) -> Mapping[str, str]:
    return dict.fromkeys(engines, path)


_WITH_TOKENS = ("llamacpp", "vllm")
CHATTING = Feature("chat", _same(CHAT))
COMPLETING = Feature("text completion", _same(COMPLETIONS))
RESPONDING = Feature("responses", _same(RESPONSES))
EMBEDDING = Feature("embeddings", _same(EMBEDDINGS), (Task.EMBEDDING,))
RERANKING = Feature("reranking", _same("/v1/rerank", _WITH_TOKENS), (Task.RERANK,))
TRANSCRIBING = Feature("audio transcription", _same("/v1/audio/transcriptions"))
TOKENIZING = Feature("tokenization", _same("/tokenize", _WITH_TOKENS), _ANY)
DETOKENIZING = Feature("detokenization", _same("/detokenize", _WITH_TOKENS), _ANY)
APPLYING_TEMPLATE = Feature("the chat template", _same("/apply-template", ("llamacpp",)))
INFILLING = Feature("infill", _same("/infill", ("llamacpp",)))
# llama.cpp: the prompt, which /tokenize counts then. vLLM's /tokenize takes messages.
COUNTING_TOKENS = Feature(
    "counting the tokens of a chat", {"llamacpp": "/apply-template", "vllm": "/tokenize"}
)
# Ollama has no metrics. llama.cpp has them with LLAMA_ARG_ENDPOINT_METRICS=1, else it answers 501.
METRICS = Feature("metrics", _same("/metrics", _WITH_TOKENS), _ANY)
FEATURES = (
    *(CHATTING, COMPLETING, RESPONDING, EMBEDDING, RERANKING, TRANSCRIBING),
    *(TOKENIZING, DETOKENIZING, APPLYING_TEMPLATE, INFILLING, COUNTING_TOKENS),
    METRICS,
)
"""All rows of the table."""
