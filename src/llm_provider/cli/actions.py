"""What each verb of the command does."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

from llm_provider.cli.exit_status import FAILED, NOT_REACHABLE, OK
from llm_provider.errors import ConfigurationError


def _text_of(name: str, what: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The {what} cannot be read: {error}.") from error


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    # The chat API's own file will do: the first line that is a key.
    for line in map(str.strip, _text_of(name, "key file").splitlines()):
        if line and not line.startswith("#"):
            return line
    raise ConfigurationError(f"The key file {name} holds no key.")


def _own_key(arguments: argparse.Namespace) -> str | None:
    return _key(arguments.key_file) or os.environ.get("OPENAI_API_KEY")


def _verify(arguments: argparse.Namespace) -> str | bool:
    return arguments.ca_file or True


def serve(arguments: argparse.Namespace) -> int:
    from llm_provider.server.process import main

    return main([f"--host={arguments.host}", f"--port={arguments.port}"])


def _check_task_options(arguments: argparse.Namespace) -> None:
    """Raise ConfigurationError for an option that has no meaning for a model of the task."""
    of_task = {"prompt": "chat", "answer": "chat", "dimensions": "embedding"}
    for name, task in of_task.items():
        if getattr(arguments, name) is not None and arguments.task != task:
            raise ConfigurationError(
                f"--{name} is for --task {task}, and --task is {arguments.task}."
            )


async def check_host(arguments: argparse.Namespace) -> int:
    from llm_provider.cli.check import DEFAULT_PROMPT, Wanted, check
    from llm_provider.cli.display import for_stdout

    _check_task_options(arguments)
    wanted = Wanted(
        provider=arguments.provider,
        model=arguments.model,
        task=arguments.task,
        dimensions=arguments.dimensions,
        prompt=arguments.prompt or DEFAULT_PROMPT,
        answer=arguments.answer,
        max_tokens=arguments.max_tokens,
        context_size=arguments.context_size,
        parallel=arguments.parallel,
        seconds=arguments.timeout,
    )
    async with AsyncExitStack() as serving:
        url, key = arguments.url, None
        if arguments.engine is None:
            key = _own_key(arguments)
        else:
            from llm_provider.server.ephemeral import ephemeral_server

            url, key = await serving.enter_async_context(
                ephemeral_server(arguments.engine, os.environ)
            )
        if arguments.json:
            report = await check(url, key, wanted, verify=_verify(arguments))
            print(json.dumps(report.as_dict()))
        else:
            display = for_stdout()
            with display.busy("health"):
                report = await check(url, key, wanted, watcher=display, verify=_verify(arguments))
            display.verdict(report)
    if not report.reachable:
        return NOT_REACHABLE
    return OK if report.ok else FAILED


async def chat(arguments: argparse.Namespace) -> int:
    from llm_provider.cli.display import for_stdout
    from llm_provider.cli.timed_answer import TimedAnswer
    from llm_provider.client.chat_api import ChatAPIClient
    from llm_provider.providers.chat_format import one_message

    options: dict[str, Any] = {"stream_options": {"include_usage": True}}
    if arguments.max_tokens:
        options["max_tokens"] = arguments.max_tokens
    body = one_message(arguments.prompt, arguments.system, options)
    display = None if arguments.json else for_stdout()
    answer = TimedAnswer()
    begun = False
    started = time.monotonic()
    async with ChatAPIClient(
        model=arguments.model,
        base_url=arguments.url,
        api_key=_own_key(arguments),
        verify=_verify(arguments),
    ) as client:
        with ExitStack() as waiting:
            if display:
                waiting.enter_context(display.busy("waiting for the first token"))
            try:
                async with client.stream(body) as events:
                    async for event in events:
                        text = answer.add_at(event, time.monotonic())
                        if display is None:
                            continue
                        if not begun and answer.reasoning:
                            display.say(f"reasoning: {len(answer.reasoning)} characters")
                        piece = text if begun else text.lstrip()
                        if piece:
                            begun = True
                            waiting.close()
                            display.write(piece)
            finally:
                if display and begun:
                    display.end()
    ttft = answer.times[0] - started if answer.times else None
    if display is None:
        print(
            json.dumps(
                {
                    "answer": answer.text.strip(),
                    "reasoning": answer.reasoning or None,
                    "model": answer.model,
                    "finish_reason": answer.finish_reason,
                    "usage": answer.usage,
                    "ttft_seconds": None if ttft is None else round(ttft, 4),
                    "tokens_per_second": answer.tokens_per_second,
                }
            )
        )
    elif not begun:
        kind = "only reasoning" if answer.reasoning else "no text"
        print(f"llm-provider: The answer has {kind}.", file=sys.stderr)
    elif display.terminal and ttft is not None:
        parts = [f"{answer.tokens} tokens", f"first after {ttft:.2f} s"]
        if answer.tokens_per_second is not None:
            parts.append(f"{answer.tokens_per_second:g} tokens/s")
        if answer.finish_reason == "length":
            parts.append("cut off at the length allowed")
        display.line(", ".join(parts), "dim")
    return OK


async def list_models(arguments: argparse.Namespace) -> int:
    from llm_provider.client.chat_api import ChatAPIClient

    async with ChatAPIClient(
        model="default",
        base_url=arguments.url,
        api_key=_own_key(arguments),
        verify=_verify(arguments),
    ) as client:
        names = await client.models()
    print(json.dumps({"models": names}) if arguments.json else "\n".join(names))
    return OK


async def run_bench(arguments: argparse.Namespace) -> int:
    from llm_provider.cli.bench import Address, Load, bench
    from llm_provider.cli.check import DEFAULT_PROMPT
    from llm_provider.cli.display import ProgressLines, for_stdout

    if arguments.compare_key_file and not arguments.compare:
        raise ConfigurationError("--compare-key-file is for --compare, which is not given.")
    if arguments.compare_key_file == arguments.key_file == "-":
        raise ConfigurationError("--key-file and --compare-key-file cannot both be standard input.")
    load = Load(
        requests=arguments.requests,
        levels=arguments.parallel,
        prompt=arguments.prompt or DEFAULT_PROMPT,
        prompt_tokens=None if arguments.prompt else arguments.prompt_tokens,
        max_tokens=arguments.max_tokens,
        seconds=arguments.seconds,
        timeout=arguments.timeout,
    )
    address = Address(arguments.url, _own_key(arguments), _verify(arguments))
    compare = None
    if arguments.compare:
        compare = Address(arguments.compare, _key(arguments.compare_key_file), address.verify)
    if arguments.json:
        watcher = ProgressLines() if arguments.progress else None
        result = await bench(load, address, compare, model=arguments.model, watcher=watcher)
        print(json.dumps(result.as_dict()))
    else:
        display = for_stdout()
        with display.busy("warming up", bar=True):
            result = await bench(load, address, compare, model=arguments.model, watcher=display)
    return FAILED if result.failed else OK
