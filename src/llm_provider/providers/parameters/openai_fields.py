"""The fields of OpenAI's API, and the rules about them that all engines share.

Fields as of the Python package openai 3.57: `CompletionCreateParams` of chat and of completions,
`ResponseCreateParams`, `EmbeddingCreateParams`.
"""

from __future__ import annotations

from llm_provider.providers.parameters.rules import Effect, Rule, drop, refuse
from llm_provider.providers.parameters.table import words
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

FIELDS = {
    CHAT: words(
        """
        audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
        max_tokens messages metadata modalities model moderation n parallel_tool_calls prediction
        presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention
        reasoning_effort response_format safety_identifier seed service_tier stop store stream
        stream_options temperature tool_choice tools top_logprobs top_p user verbosity
        web_search_options
        """
    ),
    COMPLETIONS: words(
        """
        best_of echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty
        prompt seed stop stream stream_options suffix temperature top_p user
        """
    ),
    RESPONSES: words(
        """
        access_programs background background_options context_management conversation image include
        input instructions max_output_tokens max_tool_calls metadata model moderation
        parallel_tool_calls previous_response_id prompt prompt_cache_key prompt_cache_options
        prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options
        temperature text tool_choice tools top_logprobs top_p truncation user
        """
    ),
    EMBEDDINGS: words("dimensions encoding_format input model user"),
}
"""OpenAI's fields of each route that has a table."""

LOGPROBS = "message.output_text.logprobs"

# About the account, its billing and its caches.
_ACCOUNT = (
    drop("user"),
    drop("safety_identifier"),
    drop("service_tier", "auto", "default", note="there is one"),
    drop("store", False, note="nothing is stored"),
    drop("prompt_cache_key", note="the engine chooses what it caches"),
    drop("prompt_cache_options"),
    drop("prompt_cache_retention"),
)
_STREAM = (drop("stream_options.include_obfuscation", False),)
_MODERATION = (refuse("moderation", note="nothing is moderated"),)

CHAT_RULES = (
    *_ACCOUNT,
    *_STREAM,
    *_MODERATION,
    drop("metadata", note="it belongs to stored answers"),
    drop("prediction", note="it speeds up an answer and changes nothing of it"),
    drop("verbosity", "medium", note="say so in a message"),
    refuse("functions", note="`tools` is the field's successor"),
    refuse("function_call", "none", "auto", note="`tool_choice` is the field's successor"),
    refuse("modalities", ["text"], note="answers are text"),
    refuse("audio", note="answers are text"),
    Rule("web_search_options", Effect.REFUSE, even_empty=True, note="the engine searches nothing"),
)
COMPLETIONS_RULES = (drop("user"), *_STREAM)
RESPONSES_RULES = (
    *_ACCOUNT,
    *_STREAM,
    *_MODERATION,
    drop("access_programs"),
    drop("background_options", note="they go with `background`"),
    drop("context_management", note="a conversation is not shortened"),
    drop("image", note="images are not compressed"),
    drop("max_tool_calls", note="it counts calls of tools that OpenAI runs"),
    drop("reasoning.context", "auto", note="the model's template decides"),
    drop("reasoning.generate_summary"),
    drop("reasoning.mode", "standard"),
    drop("reasoning.summary"),
    drop("text.verbosity", "medium", note="say so in a message"),
    refuse("conversation", note="no conversation is stored"),
)
EMBEDDINGS_RULES = (drop("user"),)

# Of engines that give no token's probability on /v1/responses.
NO_LOGPROBS = (
    Rule("include[]", Effect.REFUSE, only=(LOGPROBS,)),
    drop("include[]", LOGPROBS, note="it is about tools that OpenAI runs, and encrypted reasoning"),
)
