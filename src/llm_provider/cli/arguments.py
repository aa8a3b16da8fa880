"""The arguments of the command."""

from __future__ import annotations

import argparse
from pathlib import Path

from llm_provider import API_PORT, __version__
from llm_provider.cli import actions
from llm_provider.providers.settings import Task

DESCRIPTION = """\
The `llm-provider` command: prove that a host answers, talk to it, list its models, time it; serve
the chat API."""
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
_SERVE = "Serve the chat API before an engine."
_SERVE_MORE = (
    f"{_SERVE} Settings are read from the environment: CHAT_API_KEYS_FILE and LLM_MODEL, which are "
    "required, LLM_PROVIDER, LLM_BASE_URL and others (docs/chat-api.md)."
)
_MOST_AT_ONCE = 256
_MOST_REQUESTS = 10_000


def build_parser() -> argparse.ArgumentParser:
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
        made.add_argument(
            "--ca-file",
            metavar="FILE",
            help="the certificate authorities (PEM) that sign the certificate of an https URL "
            "(default: SSL_CERT_FILE, else the system's)",
        )
        made.add_argument("--json", action="store_true", help="print one JSON object")
        return made

    parser = argparse.ArgumentParser(
        prog="llm-provider",
        description=DESCRIPTION,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_check(command("check", "Prove that a host answers chat requests as it should."))

    chat = command("chat", "Ask a question and print the answer as it comes.")
    chat.add_argument("--model", default="default", help="the model (default: the one served)")
    chat.add_argument("--system", metavar="TEXT", help="system prompt")
    chat.add_argument("--max-tokens", type=_count, metavar="N", help="the answer's longest length")
    chat.add_argument("prompt", metavar="PROMPT")
    chat.set_defaults(run=actions.chat)

    models = command("models", "List the models that a host serves, one per line.")
    models.set_defaults(run=actions.list_models)

    _add_bench(
        command(
            "bench",
            "Time a chat API or an engine, at some numbers of requests at once.",
            "Requests are streamed, and each has a prompt of its own: an engine keeps the prompts "
            "that it has read. playbooks/benchmark.yml runs this for each host, with the same "
            "defaults.",
        )
    )
    _add_serve(commands.add_parser("serve", help=_SERVE, description=_SERVE_MORE))
    return parser


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "--host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="the address to listen at; 0.0.0.0: all of this machine's (default: 127.0.0.1)",
    )
    serve.add_argument(
        "--port", type=_port, default=API_PORT, metavar="N", help="(default: %(default)s)"
    )
    serve.set_defaults(program=actions.serve)


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
    check.add_argument(
        "--task",
        choices=[task.value for task in Task],
        default=Task.CHAT.value,
        help="what the model is for (default: chat)",
    )
    check.add_argument(
        "--dimensions",
        type=_count,
        metavar="N",
        help="how many numbers the vector of an embedding model must have",
    )
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
    check.set_defaults(run=actions.check_host)


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
        default=(1, 4, 8),
        metavar="N,N,...",
        help="how many run at once, one level after another (default: 1,4,8)",
    )
    bench.add_argument(
        "--prompt-tokens",
        type=_count,
        default=128,
        metavar="N",
        help="about how many tokens each prompt has (default: 128)",
    )
    bench.add_argument(
        "--prompt", help="what to ask, each time, in the place of prompts of --prompt-tokens"
    )
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
        default=600.0,
        metavar="S",
        help="seconds within which each answer must be complete (default: 600)",
    )
    bench.add_argument(
        "--progress",
        action="store_true",
        help="with --json: say on standard error how far it is",
    )
    bench.set_defaults(run=actions.run_bench)


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


def _port(text: str) -> int:
    return _count(text, 65535)


def _requests(text: str) -> int:
    return _count(text, _MOST_REQUESTS)


def _levels(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_count(part.strip(), _MOST_AT_ONCE) for part in text.split(",")))
