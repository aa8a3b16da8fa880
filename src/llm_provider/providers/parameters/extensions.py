"""Fields beyond OpenAI's API that some engines read, and that others ignore.

They choose tokens, bind the answer to a grammar, end it or render the prompt: a request for one
engine would get another answer from the next.
"""

from __future__ import annotations

from llm_provider.providers.parameters.rules import Rule, refuse

_RULES = (
    refuse("add_generation_prompt", True),
    refuse("allowed_token_ids"),
    refuse("bad_words"),
    refuse("chat_template"),
    refuse("chat_template_kwargs"),
    refuse("continue_final_message", False),
    refuse("documents"),
    refuse("dry_multiplier", 0),
    refuse("dynatemp_range", 0),
    refuse("grammar"),
    refuse("guided_choice"),
    refuse("guided_grammar"),
    refuse("guided_json"),
    refuse("guided_regex"),
    refuse("ignore_eos", False),
    refuse("json_schema"),
    refuse("lora"),
    refuse("min_p", 0),
    refuse("min_tokens", 0),
    refuse("mirostat", 0),
    refuse("n_predict", -1),
    refuse("prompt_logprobs"),
    refuse("reasoning_budget_tokens", -1),
    refuse("repeat_penalty", 1),
    refuse("repetition_penalty", 1),
    refuse("samplers"),
    refuse("stop_token_ids"),
    refuse("structured_outputs"),
    refuse("thinking_token_budget", -1),
    refuse("top_k"),
    refuse("top_n_sigma", -1),
    refuse("truncate_prompt_tokens"),
    refuse("typical_p", 1),
    refuse("use_beam_search", False),
    refuse("xtc_probability", 0),
)


def ignored_extensions(known: str) -> tuple[Rule, ...]:
    """Return the rules for an engine that reads the names in `known`."""
    names = known.split()
    return tuple(rule for rule in _RULES if rule.field not in names)
