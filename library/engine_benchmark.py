#!/usr/bin/python
"""The engine_benchmark module: see `edge_host.benchmark.engine` and `llama_bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.benchmark.engine import EngineError, ask_engine
from ansible.module_utils.edge_host.benchmark.llama_bench import (
    LlamaBenchError,
    run_llama_bench,
)
from ansible.module_utils.edge_host.constants import ROOT

DOCUMENTATION = r"""
module: engine_benchmark
short_description: Measure a host's engine without its chat API's queue and the network
description:
  - Asks the engine at its port on the host, with the engine's key. Runs llama-bench in a container
    of its own, where the engine's image has it and memory for a second copy of the weights is free.
  - Changes nothing on the host.
options:
  root:
    description: The folder of the deployment.
    type: path
    default: /opt/edge-llm
  model:
    description: The name by which the engine knows the model.
    type: str
    required: true
  container:
    description: The name of the engine's container.
    type: str
    required: true
  memory:
    description: Bytes that the model takes, for llama-bench.
    type: int
    required: true
  prompt:
    description: The prompt.
    type: str
    required: true
  prompt_tokens:
    description: About how many tokens it has, which llama-bench reads.
    type: int
    required: true
  max_tokens:
    description: Tokens of an answer, at most, and tokens that llama-bench generates.
    type: int
    required: true
  requests:
    description: How often the engine is asked.
    type: int
    default: 4
  timeout:
    description: Seconds for an answer, and for llama-bench.
    type: float
    default: 600
author: edge-llm
"""

EXAMPLES = r"""
- name: Measure the engine alone
  engine_benchmark:
    model: smollm2-135m
    container: edge-llm-engine-a
    memory: 268435456
    prompt: Write a long story.
    prompt_tokens: 128
    max_tokens: 64
  register: engine
"""

RETURN = r"""
asked:
  description: The engine asked at its port, or null.
  returned: success
  type: dict
  contains:
    requests: {type: int, description: How many requests.}
    ttft_ms: {type: float, description: "Milliseconds to the first token, the median."}
    prompt_tokens: {type: int, description: Tokens of the prompts that the engine has read.}
    prompt_tokens_per_second: {type: float, description: "Their pace, or null."}
    tokens: {type: int, description: Tokens of the answers.}
    tokens_per_second: {type: float, description: "The pace after the first token, or null."}
asked_problem:
  description: Why there is no such figure, or empty.
  returned: success
  type: str
llama_bench:
  description: The engine's own benchmark, or null.
  returned: success
  type: dict
  contains:
    prompt_tokens_per_second: {type: float, description: "The pace of prompts, or null."}
    tokens_per_second: {type: float, description: The pace of the answer.}
    build: {type: int, description: "The build of llama.cpp, or null."}
llama_bench_problem:
  description: Why there is no such figure, or empty.
  returned: success
  type: str
"""


def main() -> None:
    """Parse the arguments, measure the engine in two ways and return both."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": ROOT},
            "model": {"type": "str", "required": True},
            "container": {"type": "str", "required": True},
            "memory": {"type": "int", "required": True},
            "prompt": {"type": "str", "required": True},
            "prompt_tokens": {"type": "int", "required": True},
            "max_tokens": {"type": "int", "required": True},
            "requests": {"type": "int", "default": 4},
            "timeout": {"type": "float", "default": 600},
        },
        supports_check_mode=True,
    )
    given = module.params
    root = Path(given["root"])
    result: Dict[str, Any] = {
        "asked": None,
        "asked_problem": "",
        "llama_bench": None,
        "llama_bench_problem": "",
    }
    try:
        result["asked"] = ask_engine(
            root,
            given["model"],
            given["prompt"],
            given["max_tokens"],
            given["requests"],
            given["timeout"],
        )
    except EngineError as error:
        result["asked_problem"] = str(error)
    try:
        result["llama_bench"] = run_llama_bench(
            root,
            given["container"],
            given["prompt_tokens"],
            given["max_tokens"],
            given["memory"],
            given["timeout"],
        )
    except LlamaBenchError as error:
        result["llama_bench_problem"] = str(error)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
