"""The `llm-provider` command: its start, and how it reports failures."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys

from llm_provider.cli.arguments import build_parser
from llm_provider.cli.exit_status import FAILED, NOT_REACHABLE, STOPPED, USAGE
from llm_provider.errors import (
    ConfigurationError,
    EngineTimeoutError,
    EngineUnreachableError,
    LLMError,
    StreamInterruptedError,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status (see --help)."""
    arguments = build_parser().parse_args(argv)
    if program := getattr(arguments, "program", None):
        ended: int = program(arguments)
        return ended
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # An answer may hold what the terminal cannot show; that is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        if getattr(arguments, "engine", None) is not None:
            if arguments.url or arguments.key_file or arguments.ca_file:
                raise ConfigurationError(
                    "--engine starts a chat API of its own; leave --url, --key-file and --ca-file "
                    "out."
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
        from llm_provider.cli.display import printable

        print(f"llm-provider: {printable(str(error))}", file=sys.stderr)
        if isinstance(error, ConfigurationError):
            return USAGE
        if arguments.json:
            report = {"error": str(error)}
            if isinstance(error, StreamInterruptedError | EngineTimeoutError):
                report["answer"] = error.text.strip()
            print(json.dumps(report))
        return NOT_REACHABLE if isinstance(error, EngineUnreachableError) else FAILED
