"""The `llm-provider` command: prove that a host answers, list its models, talk to it."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sys
from pathlib import Path

from llm_provider.errors import ConfigurationError, LLMError, NotReachable

OK, FAILED, USAGE, NOT_REACHABLE = range(4)

_EXIT_CODES = """\
exit status:
  0  all is well
  1  a check failed, or the request did
  2  wrong usage
  3  the host is not reachable
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status (see --help)."""
    arguments = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # An answer may hold what the terminal cannot show; that is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        if not arguments.url:
            raise ConfigurationError("No URL is given; use --url, or set OPENAI_BASE_URL.")
        status: int = asyncio.run(arguments.run(arguments))
        return status
    except KeyboardInterrupt:
        return 130
    except LLMError as error:
        print(f"llm-provider: {error}", file=sys.stderr)
        if isinstance(error, ConfigurationError):
            return USAGE
        return NOT_REACHABLE if isinstance(error, NotReachable) else FAILED


def _parser() -> argparse.ArgumentParser:
    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=_EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.add_argument(
            "--url",
            default=os.environ.get("OPENAI_BASE_URL"),
            help="the chat API, such as http://198.18.40.11:8000 (default: OPENAI_BASE_URL)",
        )
        made.add_argument(
            "--key-file",
            metavar="FILE",
            help="a file with the API key, - for standard input (default: OPENAI_API_KEY)",
        )
        return made

    parser = argparse.ArgumentParser(
        prog="llm-provider",
        description=__doc__,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = command("check", "Prove that a host answers chat requests as it should.")
    check.add_argument("--provider", help="the provider that must serve")
    check.add_argument("--model", help="the model that must be served")
    check.add_argument("--prompt", help="what to ask (default: the capital of France)")
    check.add_argument("--answer", help="the exact answer wanted, at temperature 0")
    check.add_argument(
        "--timeout",
        type=_seconds,
        default=120.0,
        metavar="S",
        help="seconds to wait for readiness, and for each answer (default: 120)",
    )
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    check.set_defaults(run=_check)

    chat = command("chat", "Ask a question and print the answer as it comes.")
    chat.add_argument("--model", default="default", help="the model (default: the one served)")
    chat.add_argument("prompt", metavar="PROMPT")
    chat.set_defaults(run=_chat)

    models = command("models", "List the models that a host serves, one per line.")
    models.set_defaults(run=_models)
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _key(arguments: argparse.Namespace) -> str | None:
    name = arguments.key_file
    if name is None:
        return os.environ.get("OPENAI_API_KEY")
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The key file cannot be read: {error}.") from error
    # The chat API's own file will do: the first line that is a key.
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith("#"):
            return line
    raise ConfigurationError(f"The key file {name} holds no key.")


async def _check(arguments: argparse.Namespace) -> int:
    from llm_provider.check import DEFAULT_PROMPT, Check, Wanted, check

    ok_mark, failed_mark = _marks()

    def tell(outcome: Check) -> None:
        mark = ok_mark if outcome.ok else failed_mark
        print(f"{mark} {outcome.name:<7} {outcome.seen}", flush=True)
        if not outcome.ok:
            print(f"  {'':<7} wanted: {outcome.wanted}", flush=True)

    wanted = Wanted(
        provider=arguments.provider,
        model=arguments.model,
        prompt=arguments.prompt or DEFAULT_PROMPT,
        answer=arguments.answer,
        seconds=arguments.timeout,
    )
    report = await check(
        arguments.url, _key(arguments), wanted, tell=None if arguments.json else tell
    )
    if arguments.json:
        print(json.dumps(report.as_dict()))
    else:
        failed = [outcome.name for outcome in report.checks if not outcome.ok]
        verdict = f"failed: {', '.join(failed)}" if failed else "all checks passed"
        print(f"{report.url}: {verdict}.")
    if not report.reachable:
        return NOT_REACHABLE
    return OK if report.ok else FAILED


async def _chat(arguments: argparse.Namespace) -> int:
    from llm_provider.check import Board

    async with Board(
        model=arguments.model, base_url=arguments.url, api_key=_key(arguments)
    ) as board:
        begun = False
        try:
            async for text in board.generate_stream(arguments.prompt):
                piece = text if begun else text.lstrip()
                begun = begun or bool(piece)
                print(piece, end="", flush=True)
        finally:
            if begun:
                print()
    return OK


async def _models(arguments: argparse.Namespace) -> int:
    from llm_provider.check import Board

    async with Board(model="default", base_url=arguments.url, api_key=_key(arguments)) as board:
        print("\n".join(await board.models()))
    return OK


def _marks() -> tuple[str, str]:
    try:
        "✓✗".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "ok    ", "FAILED"
    return "✓", "✗"
