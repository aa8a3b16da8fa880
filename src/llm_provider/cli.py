"""The `llm-provider` command: prove that a host answers, talk to it, list its models, time it."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sys
import time
from contextlib import AsyncExitStack, ExitStack, aclosing
from pathlib import Path
from typing import Any

from llm_provider.errors import (
    ConfigurationError,
    EngineTimeoutError,
    EngineUnreachableError,
    LLMError,
    StreamInterruptedError,
)

OK, FAILED, USAGE, NOT_REACHABLE = range(4)
STOPPED = 130

_EXIT_CODES = """\
exit status:
  0    all is well
  1    a check failed, or a request did
  2    wrong usage
  3    the host is not reachable
  130  stopped by Ctrl-C

Sentences about failures are on standard error. With --json, standard output is one
JSON object: what the command found, or {"error": SENTENCE}; nothing where the usage is wrong.
"""
_MOST_AT_ONCE = 256
_MOST_REQUESTS = 10_000


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status (see --help)."""
    arguments = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # An answer may hold what the terminal cannot show; that is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        if getattr(arguments, "engine", None) is not None:
            if arguments.url or arguments.key_file:
                raise ConfigurationError(
                    "--engine starts a chat API of its own; leave --url and --key-file out."
                )
        else:
            arguments.url = arguments.url or os.environ.get("OPENAI_BASE_URL")
            if not arguments.url:
                raise ConfigurationError("No URL is given; use --url, or set OPENAI_BASE_URL.")
        status: int = asyncio.run(arguments.run(arguments))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:
        # Whoever read has had enough; what Python would still flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except LLMError as error:
        from llm_provider.display import printable

        print(f"llm-provider: {printable(str(error))}", file=sys.stderr)
        if isinstance(error, ConfigurationError):
            return USAGE
        if arguments.json:
            told = {"error": str(error)}
            if isinstance(error, StreamInterruptedError | EngineTimeoutError):
                told["answer"] = error.text.strip()
            print(json.dumps(told))
        return NOT_REACHABLE if isinstance(error, EngineUnreachableError) else FAILED


def _parser() -> argparse.ArgumentParser:
    def command(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=text,
            description=f"{text} {more}",
            epilog=_EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.add_argument(
            "--url",
            help="the chat API, such as http://198.18.40.11:8000 (default: OPENAI_BASE_URL)",
        )
        made.add_argument(
            "--key-file",
            metavar="FILE",
            help="a file with the API key, - for standard input (default: OPENAI_API_KEY)",
        )
        made.add_argument("--json", action="store_true", help="print one JSON object")
        return made

    parser = argparse.ArgumentParser(
        prog="llm-provider",
        description=__doc__,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_check(command("check", "Prove that a host answers chat requests as it should."))

    chat = command("chat", "Ask a question and print the answer as it comes.")
    chat.add_argument("--model", default="default", help="the model (default: the one served)")
    chat.add_argument("--system", metavar="TEXT", help="what the model is told beforehand")
    chat.add_argument("--max-tokens", type=_count, metavar="N", help="the answer's longest length")
    chat.add_argument("prompt", metavar="PROMPT")
    chat.set_defaults(run=_chat)

    models = command("models", "List the models that a host serves, one per line.")
    models.set_defaults(run=_models)

    _add_bench(
        command(
            "bench",
            "Time a chat API or an engine, at some numbers of requests at once.",
            "Every request is the same, streamed, so the engine has its prompt in memory after the "
            "first.",
        )
    )
    return parser


def _add_check(check: argparse.ArgumentParser) -> None:
    check.add_argument(
        "--engine",
        metavar="FILE",
        type=Path,
        help="prove the engine that FILE describes (as LLM_ENGINE_FILE does), through a chat API "
        "started for that alone, instead of a host's",
    )
    check.add_argument("--provider", help="the provider that must serve")
    check.add_argument("--model", help="the model that must be served")
    check.add_argument("--prompt", help="what to ask (default: the capital of France)")
    check.add_argument("--answer", help="the exact answer wanted, at temperature 0")
    check.add_argument(
        "--max-tokens",
        type=_count,
        default=64,
        metavar="N",
        help="tokens allowed for an answer; more for a model that reasons first (default: 64)",
    )
    check.add_argument(
        "--context-size",
        type=_count,
        metavar="N",
        help="the tokens that a conversation must be allowed",
    )
    check.add_argument(
        "--parallel",
        type=_count,
        metavar="N",
        help="how many requests must be answered at once",
    )
    check.add_argument(
        "--timeout",
        type=_seconds,
        default=120.0,
        metavar="S",
        help="seconds to wait for readiness, and for each answer (default: 120)",
    )
    check.set_defaults(run=_check)


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--model", help="the model (default: the only one served)")
    bench.add_argument(
        "--requests",
        type=_requests,
        default=16,
        metavar="N",
        help="requests of each level (default: 16, or one round where that is more)",
    )
    bench.add_argument(
        "--parallel",
        type=_levels,
        default=(1, 4),
        metavar="N,N,...",
        help="how many run at once, one level after another (default: 1,4)",
    )
    bench.add_argument("--prompt", help="what to ask (default: the capital of France)")
    bench.add_argument(
        "--max-tokens",
        type=_count,
        default=64,
        metavar="N",
        help="tokens of an answer, at most (default: 64)",
    )
    bench.add_argument(
        "--compare",
        metavar="URL",
        help="a second address, which gets the same requests in turns with the first",
    )
    bench.add_argument(
        "--compare-key-file",
        metavar="FILE",
        help="a file with its key, where it asks for one (the first one's key is never sent there)",
    )
    bench.add_argument(
        "--seconds",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="begin no round later than this in a level (default: 60)",
    )
    bench.add_argument(
        "--timeout",
        type=_seconds,
        default=120.0,
        metavar="S",
        help="seconds within which each answer must be complete (default: 120)",
    )
    bench.set_defaults(run=_bench)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def _count(text: str, most: int = 10**9) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 11 else 0
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {most}")
    return value


def _requests(text: str) -> int:
    return _count(text, _MOST_REQUESTS)


def _levels(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_count(part.strip(), _MOST_AT_ONCE) for part in text.split(",")))


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


async def _check(arguments: argparse.Namespace) -> int:
    from llm_provider.check import DEFAULT_PROMPT, Wanted, check
    from llm_provider.display import for_stdout

    wanted = Wanted(
        provider=arguments.provider,
        model=arguments.model,
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
            from llm_provider.trial import trial

            url, key = await serving.enter_async_context(trial(arguments.engine, os.environ))
        if arguments.json:
            report = await check(url, key, wanted)
            print(json.dumps(report.as_dict()))
        else:
            display = for_stdout()
            with display.busy("health"):
                report = await check(url, key, wanted, watcher=display)
            display.verdict(report)
    if not report.reachable:
        return NOT_REACHABLE
    return OK if report.ok else FAILED


async def _chat(arguments: argparse.Namespace) -> int:
    from llm_provider.base import one_message
    from llm_provider.client import Board, Incoming
    from llm_provider.display import for_stdout

    options: dict[str, Any] = {"stream_options": {"include_usage": True}}
    if arguments.max_tokens:
        options["max_tokens"] = arguments.max_tokens
    body = one_message(arguments.prompt, arguments.system, options)
    display = None if arguments.json else for_stdout()
    answer = Incoming()
    begun = False
    started = time.monotonic()
    async with Board(
        model=arguments.model, base_url=arguments.url, api_key=_own_key(arguments)
    ) as board:
        with ExitStack() as waiting:
            if display:
                waiting.enter_context(display.busy("waiting for the first token"))
            try:
                async with aclosing(board.stream(body)) as events:
                    async for event in events:
                        text = answer.take(event, time.monotonic())
                        if display is None:
                            continue
                        if not begun and answer.reasoning:
                            display.say(f"reasoning: {len(''.join(answer.reasoning))} characters")
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
                    "reasoning": "".join(answer.reasoning) or None,
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


async def _models(arguments: argparse.Namespace) -> int:
    from llm_provider.client import Board

    async with Board(model="default", base_url=arguments.url, api_key=_own_key(arguments)) as board:
        names = await board.models()
    print(json.dumps({"models": names}) if arguments.json else "\n".join(names))
    return OK


async def _bench(arguments: argparse.Namespace) -> int:
    from llm_provider.bench import Address, Load, bench
    from llm_provider.check import DEFAULT_PROMPT
    from llm_provider.display import for_stdout

    if arguments.compare_key_file and not arguments.compare:
        raise ConfigurationError("--compare-key-file is for --compare, which is not given.")
    if arguments.compare_key_file == arguments.key_file == "-":
        raise ConfigurationError("--key-file and --compare-key-file cannot both be standard input.")
    load = Load(
        requests=arguments.requests,
        levels=arguments.parallel,
        prompt=arguments.prompt or DEFAULT_PROMPT,
        max_tokens=arguments.max_tokens,
        seconds=arguments.seconds,
        timeout=arguments.timeout,
    )
    address = Address(arguments.url, _own_key(arguments))
    compare = None
    if arguments.compare:
        compare = Address(arguments.compare, _key(arguments.compare_key_file))
    if arguments.json:
        result = await bench(load, address, compare, model=arguments.model)
        print(json.dumps(result.as_dict()))
    else:
        display = for_stdout()
        with display.busy("warming up", bar=True):
            result = await bench(load, address, compare, model=arguments.model, watcher=display)
    return FAILED if result.failed else OK
