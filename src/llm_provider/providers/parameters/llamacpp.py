"""What llama.cpp's llama-server does with the fields of OpenAI's routes.

Build 11669: tools/server/server-schema.cpp (all that it reads),
server-common.cpp (`oaicompat_chat_params_parse`) and server-chat.cpp
(`server_chat_convert_responses_to_chatcmpl`: what it does not convert it treats as chat's).
`providers.llamacpp` rewrites a `tool_choice` that names a function.
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
from llm_provider.providers.parameters.rules import drop, refuse
from llm_provider.providers.parameters.table import table
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

_CHAT = """
    frequency_penalty logit_bias logprobs max_completion_tokens max_tokens messages model n
    parallel_tool_calls presence_penalty reasoning_effort response_format seed stop stream
    stream_options temperature tool_choice tools top_logprobs top_p
"""
_SAMPLING = """
    adaptive_decay adaptive_target backend_sampling cache_prompt dry_allowed_length dry_base
    dry_multiplier dry_penalty_last_n dry_sequence_breakers dynatemp_exponent dynatemp_range grammar
    id_slot ignore_eos json_schema lora min_keep min_p mirostat mirostat_eta mirostat_tau
    n_cache_reuse n_cmpl n_discard n_indent n_keep n_predict n_probs post_sampling_probs
    repeat_last_n repeat_penalty return_progress samplers sse_ping_interval t_max_predict_ms
    timings_per_token top_k top_n_sigma typical_p verbose xtc_probability xtc_threshold
"""
_TEMPLATE = """
    add_generation_prompt chat_template_kwargs continue_final_message parse_tool_calls
    reasoning_budget_end_tag reasoning_budget_end_tags reasoning_budget_message
    reasoning_budget_start_tag reasoning_budget_tokens reasoning_control reasoning_format
    thinking_budget_tokens
"""
_TOOL_CHOICE = refuse("tool_choice.type", "function", note="other objects are read as `auto`")

TABLES = {
    CHAT: table(
        _CHAT,
        _SAMPLING + _TEMPLATE,
        [_TOOL_CHOICE],
        CHAT_RULES,
        ignored_extensions(_SAMPLING + _TEMPLATE),
    ),
    COMPLETIONS: table(
        """
        frequency_penalty logit_bias logprobs max_tokens model n presence_penalty prompt seed stop
        stream stream_options temperature top_p
        """,
        f"{_SAMPLING} grammar_lazy grammar_triggers max_completion_tokens preserved_tokens",
        [
            refuse("best_of", 1),
            refuse("echo", False),
            refuse("suffix", note="/infill has it"),
            refuse("response_format.type", "text", note="`json_schema` and `grammar` are read"),
        ],
        COMPLETIONS_RULES,
        ignored_extensions(_SAMPLING),
    ),
    RESPONSES: table(
        """
        input instructions max_output_tokens model parallel_tool_calls previous_response_id
        reasoning stream temperature tool_choice tools top_logprobs top_p
        """,
        f"""
        {_SAMPLING} {_TEMPLATE}
        frequency_penalty logit_bias presence_penalty reasoning_effort response_format seed stop
        """,
        [
            _TOOL_CHOICE,
            drop("tools[].type", "function", note="other tools do not reach the model"),
            refuse("text.format.type", "text", note="`response_format` is read"),
            refuse("background", False),
            refuse("prompt"),
            drop("truncation", "disabled", note="a conversation that is too long is refused"),
            drop("metadata"),
        ],
        NO_LOGPROBS,
        RESPONSES_RULES,
        ignored_extensions(_SAMPLING + _TEMPLATE),
    ),
    EMBEDDINGS: table(
        "encoding_format input model",
        "content embd_normalize",
        [refuse("dimensions", note="vectors have the model's size")],
        EMBEDDINGS_RULES,
    ),
}
"""By route."""
