"""What vLLM does with the fields of OpenAI's routes.

0.32.0: vllm/entrypoints/openai/{chat_completion,completion,responses}/protocol.py and serving.py,
vllm/entrypoints/pooling/{base,embed}/protocol.py. It drops all that these do not name
(`OpenAIBaseModel`: extra fields are allowed) and some that they do.
"""

from __future__ import annotations

from llm_provider.providers.parameters.extensions import ignored_extensions
from llm_provider.providers.parameters.openai_fields import (
    CHAT_RULES,
    COMPLETIONS_RULES,
    EMBEDDINGS_RULES,
    LOGPROBS,
    RESPONSES_RULES,
)
from llm_provider.providers.parameters.rules import drop, refuse
from llm_provider.providers.parameters.table import table
from llm_provider.providers.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

_EVERY = """
    cache_salt ec_transfer_params ignore_eos include_stop_str_in_output kv_transfer_params min_p
    priority repetition_penalty request_id session_id skip_special_tokens stop_token_ids
    structured_outputs top_k vllm_xargs watermarking
"""
_SAMPLING = f"""
    {_EVERY} add_special_tokens allowed_token_ids bad_words length_penalty logprob_token_ids
    min_tokens prompt_logprobs repetition_detection return_token_ids return_tokens_as_token_ids
    routed_experts_prompt_start spaces_between_special_tokens stream_interval thinking_token_budget
    truncate_prompt_tokens truncation_side use_beam_search
"""
_CHAT = f"""
    {_SAMPLING} add_generation_prompt chat_template chat_template_kwargs continue_final_message
    documents echo include_reasoning media_io_kwargs mm_processor_kwargs return_prompt_text
"""
_COMPLETIONS = f"{_SAMPLING} prompt_embeds response_format"
_RESPONSES = f"""
    {_EVERY} chat_template_kwargs enable_response_messages frequency_penalty include_reasoning
    logit_bias media_io_kwargs mm_processor_kwargs presence_penalty previous_input_messages seed
    stop
"""

TABLES = {
    CHAT: table(
        """
        frequency_penalty logit_bias logprobs max_completion_tokens max_tokens messages model n
        parallel_tool_calls presence_penalty reasoning_effort response_format seed stop stream
        stream_options temperature tool_choice tools top_logprobs top_p
        """,
        _CHAT,
        CHAT_RULES,
        ignored_extensions(_CHAT),
    ),
    COMPLETIONS: table(
        """
        echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty prompt seed
        stop stream stream_options suffix temperature top_p
        """,
        _COMPLETIONS,
        [
            refuse("best_of", 1),
            refuse("max_completion_tokens", note="`max_tokens` is read, and is 16 without it"),
        ],
        COMPLETIONS_RULES,
        ignored_extensions(_COMPLETIONS),
    ),
    RESPONSES: table(
        """
        background include input instructions max_output_tokens metadata model parallel_tool_calls
        previous_response_id prompt reasoning stream temperature text tool_choice tools
        top_logprobs top_p truncation
        """,
        _RESPONSES,
        [
            drop("include[]", LOGPROBS),
            drop("tools[].type", "function", "custom", "namespace"),
            refuse("tool_choice.type", "function", "custom", note="others are read as `auto`"),
        ],
        RESPONSES_RULES,
        ignored_extensions(_RESPONSES),
    ),
    EMBEDDINGS: table(
        "dimensions encoding_format input model",
        """
        add_generation_prompt add_special_tokens cache_salt chat_template chat_template_kwargs
        continue_final_message embed_dtype endianness media_io_kwargs messages mm_processor_kwargs
        padding priority request_id truncate_prompt_tokens truncation_side use_activation
        """,
        EMBEDDINGS_RULES,
    ),
}
"""By route."""
