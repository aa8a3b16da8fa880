"""What a model's task changes in a plan: how its engine is started, and how large an input may be.

An embedding, as a score, is computed of a whole input at once. So llm_context_size is the length of
an input there, and the engine's micro-batch is as large.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge_fleet.plan.types import EngineOptions, Model
from edge_fleet.settings import Settings
from edge_fleet.text import Problem, join_choices, join_names

CHAT = "chat"
DEFAULT_CONTEXT, DEFAULT_PARALLEL = 4096, 4


def engine_tasks(rules: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Task -> what an engine is started with for it, and its limits."""
    found: dict[str, dict[str, Any]] = rules.get("tasks") or {CHAT: {}}
    return found


def with_task(rules: dict[str, Any], task: str) -> dict[str, Any]:
    """An engine's rules, with what it is started with for a task."""
    added = engine_tasks(rules).get(task, {})
    return rules | {
        "command": [*rules["command"], *added.get("command", [])],
        "environment": rules["environment"] | added.get("environment", {}),
    }


def task_problems(
    model: Model, provider: str, rules: Mapping[str, Any], catalogues: Mapping[str, Any]
) -> list[Problem]:
    """Why an engine does not serve a model of this task."""
    known = engine_tasks(rules)
    if model.task in known:
        return []
    entry, engines = catalogues["models"][model.name], catalogues["engines"]
    able = [
        name
        for name, engine in engines.items()
        if name != provider and model.task in engine_tasks(engine) and entry.get(engine["weights"])
    ]
    other = f"Use llm_provider {join_choices(able)}, or another" if able else "Use another"
    image = (
        " with its image for this board" if model.task in engine_tasks(engines[provider]) else ""
    )
    return [
        f"llm_model does not fit: {model.name} is for {model.task}, and {provider}{image} serves"
        f" models for {join_names(known)} only. {other} llm_model."
    ]


def chat_api_problems(model: Model, release: Mapping[str, Any] | None) -> list[Problem]:
    """Why the chat API that runs on a host does not know tasks.

    It follows the engine file before it is replaced; one of a release without tasks would refuse
    the file.
    """
    before = release["plan"]["model"] if release else {"task": CHAT}
    if model.task == CHAT or "task" in before:
        return []
    return [
        f"llm_model does not fit: {model.name} is for {model.task}, and the chat API on the host is"
        " of a version that serves chat models only. Run site.yml with"
        f" llm_model {before['name']} first, which replaces the chat API."
    ]


def task_options(
    options: EngineOptions, settings: Settings, model: Model, rules: Mapping[str, Any]
) -> tuple[EngineOptions, list[Problem]]:
    """The engine's options with the sizes that the model's task needs, and settings that contradict
    them.
    """
    limits = engine_tasks(rules).get(model.task, {})
    most, slots = limits.get("context"), limits.get("parallel")
    size, parallel = options.context_size, options.parallel
    problems: list[Problem] = []
    trained = model.shape["context_trained"]
    if settings.llm_context_size is None:
        size = min(size, trained, most or size)
    elif most and most < size <= trained:
        problems.append(
            f"llm_context_size does not fit: {size}, and {options.provider} reads at most"
            f" {most} tokens of an input. Use at most {most}, or another llm_provider."
        )
    if settings.llm_parallel is None:
        parallel = min(parallel, slots or parallel)
    elif slots and parallel > slots:
        problems.append(
            f"llm_parallel does not fit: {parallel}, and {options.provider} computes {slots}"
            f" {model.task} at a time. Use {slots}."
        )
    if settings.llm_suite and model.task != CHAT:
        problems.append(
            f"llm_suite does not fit: {join_names(settings.llm_suite)}, and {model.name} is for"
            f" {model.task}, while suites are conversations. Remove llm_suite, or use a chat model."
        )
    options = replace(options, context_size=size, parallel=parallel)
    if model.task == CHAT:
        return options, problems
    given = {
        "llm_batch_size": settings.llm_batch_size,
        "llm_ubatch_size": settings.llm_ubatch_size,
    }
    problems += [
        f"{name} does not fit: {value}, and an input of {model.name} is computed at once, whose"
        f" llm_context_size is {size}. Remove {name}, or use {size}."
        for name, value in given.items()
        if value not in (None, size)
    ]
    return replace(options, batch_size=size, ubatch_size=size), problems
