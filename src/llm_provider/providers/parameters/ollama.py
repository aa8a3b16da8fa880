"""What Ollama does with the fields of OpenAI's routes, and this module on its way there.

0.34.0: openai/openai.go (`ChatCompletionRequest`, `CompletionRequest`, `EmbedRequest` and the
functions that read them), openai/responses.go (`ResponsesRequest`). It drops all that these do not
name. `providers.ollama` rewrites `max_completion_tokens` and `tool_choice`.
"""

from __future__ import annotations

from llm_provider.providers.parameters.extensions import ignored_extensions
from llm_provider.providers.parameters.openai_fields import (
    CHAT_RULES,
    COMPLETIONS_RULES,
    EMBEDDINGS_RULES,
    NO_LOGPROBS,
    RESPONSES_RULES,
)
from llm_provider.providers.parameters.rules import Effect, Rule, drop, refuse
from llm_provider.providers.parameters.table import table
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

_TOOLS = (
    drop("parallel_tool_calls", True, note="the model decides"),
    refuse("tool_choice.type", "function"),
    drop(
        "tool_choice",
        "auto",
        "none",
        note="the model decides; others than a named tool are left out",
    ),
)
_IGNORED = ignored_extensions("")

TABLES = {
    CHAT: table(
        """
        frequency_penalty logprobs max_completion_tokens max_tokens messages model presence_penalty
        reasoning_effort response_format seed stop stream stream_options temperature tool_choice
        tools top_logprobs top_p
        """,
        "reasoning",
        [
            refuse("n", 1),
            refuse("logit_bias"),
            refuse("response_format.type", "text", "json_object", "json_schema"),
            Rule("top_logprobs", Effect.REFUSE, does=(0,), beside="logprobs"),
        ],
        _TOOLS,
        CHAT_RULES,
        _IGNORED,
    ),
    COMPLETIONS: table(
        """
        frequency_penalty max_tokens model presence_penalty prompt seed stop stream stream_options
        suffix temperature top_p
        """,
        "max_completion_tokens",
        [
            refuse("n", 1),
            refuse("best_of", 1),
            refuse("echo", False),
            refuse("logit_bias"),
            refuse("logprobs", note="they are computed, but the answer does not have them"),
            Rule("top_p", Effect.REFUSE, only=(0,), note="0 is read as 1"),
            refuse("response_format.type", "text"),
        ],
        COMPLETIONS_RULES,
        _IGNORED,
    ),
    RESPONSES: table(
        """
        input instructions max_output_tokens model reasoning stream temperature text tool_choice
        tools top_p
        """,
        "think",
        [
            refuse("text.format.type", "text", "json_schema"),
            refuse("background", False),
            refuse("previous_response_id", note="answers are not stored"),
            refuse("prompt"),
            refuse("top_logprobs", 0),
            refuse("truncation", "auto", note="the oldest messages of a long conversation go"),
            drop("metadata"),
        ],
        _TOOLS,
        NO_LOGPROBS,
        RESPONSES_RULES,
        _IGNORED,
    ),
    EMBEDDINGS: table("dimensions encoding_format input model", "", EMBEDDINGS_RULES),
}
"""By route."""
