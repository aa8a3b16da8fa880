"""The `llm-suite` command."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sys
from pathlib import Path

from llm_provider.cli.display import for_stdout
from llm_provider.cli.exit_status import FAILED, NOT_REACHABLE, OK, STOPPED, USAGE
from llm_provider.errors import ConfigurationError, EngineUnreachableError, LLMError
from llm_suite.display import Table
from llm_suite.junit import write_junit
from llm_suite.reading import SuiteError, find_suite, read_suite, suite_names
from llm_suite.result import SuiteResult
from llm_suite.runner import TIMEOUT, Host, run_suites
from llm_suite.safe_text import printable
from llm_suite.suite import Suite

FOLDER = "suites"
_MOST_TRIES = 10
_EXIT_CODES = """\
exit status:
  0    every conversation passed
  1    a conversation failed, or the host is not ready
  2    wrong usage, or an invalid suite
  3    the host is not reachable
  130  stopped by Ctrl-C
"""


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="llm-suite",
        description="Hold the conversations of test suites with a host's chat API, and judge the"
        " answers (docs/suites.md).",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE", help="a name, or a file that ends in .yml"
    )
    parser.add_argument(
        "--folder",
        action="append",
        type=Path,
        metavar="FOLDER",
        help="where suites are looked for by their names; may be given again (default: suites)",
    )
    parser.add_argument("--url", help="the chat API (default: OPENAI_BASE_URL)")
    parser.add_argument(
        "--key-file",
        metavar="FILE",
        help="a file with the API key, - for standard input (default: OPENAI_API_KEY)",
    )
    parser.add_argument(
        "--ca-file", metavar="FILE", help="the certificate authorities (PEM) of an https URL"
    )
    parser.add_argument(
        "--tries",
        type=int,
        choices=range(1, _MOST_TRIES + 1),
        default=1,
        metavar="N",
        help="hold a failed conversation again, N times at most; every try is reported"
        " (default: 1)",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=TIMEOUT,
        metavar="S",
        help="seconds for an answer whose time no suite limits (default: %(default)g)",
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML to FILE")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--validate", action="store_true", help="read the suites, and ask nobody anything"
    )
    parser.add_argument("--list", action="store_true", help="list the suites of the folders")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status (see --help)."""
    arguments = build_parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    folders = arguments.folder or [Path(FOLDER)]
    try:
        if arguments.list:
            return _list(folders)
        if not arguments.suites:
            raise SuiteError("No suite is named. --list shows those that there are.")
        suites = _read(arguments.suites, folders)
        if arguments.validate:
            return OK
        return _run(arguments, suites)
    except (SuiteError, ConfigurationError) as error:
        _complain(error, arguments.json)
        return USAGE
    except LLMError as error:
        _complain(error, arguments.json)
        return NOT_REACHABLE if isinstance(error, EngineUnreachableError) else FAILED
    except KeyboardInterrupt:
        return STOPPED


def _read(names: list[str], folders: list[Path]) -> list[Suite]:
    """Read all suites. Raises SuiteError with what is wrong with any of them."""
    suites, problems = [], []
    for name in dict.fromkeys(names):
        try:
            suites.append(read_suite(find_suite(name, folders)))
        except SuiteError as error:
            problems.append(str(error))
    if problems:
        raise SuiteError("\n".join(problems))
    return suites


def _run(arguments: argparse.Namespace, suites: list[Suite]) -> int:
    url = arguments.url or os.environ.get("OPENAI_BASE_URL")
    if not url:
        raise ConfigurationError("No URL is given; use --url, or set OPENAI_BASE_URL.")
    key = _key(arguments.key_file) if arguments.key_file else os.environ.get("OPENAI_API_KEY")
    host = Host(url, key, arguments.ca_file or True, arguments.timeout)
    if arguments.json:
        results = asyncio.run(run_suites(suites, host, tries=arguments.tries))
    else:
        display = for_stdout()
        with display.busy("ready"):
            running = run_suites(suites, host, tries=arguments.tries, watcher=Table(display))
            results = asyncio.run(running)
    _report(arguments, results)
    return OK if all(each.ok for each in results) else FAILED


def _report(arguments: argparse.Namespace, results: list[SuiteResult]) -> None:
    if arguments.junit:
        try:
            write_junit(arguments.junit, results)
        except OSError as error:
            raise SuiteError(
                f"The file {arguments.junit} cannot be written: {error.strerror}."
            ) from error
    if arguments.json:
        report = {"ok": all(each.ok for each in results), "suites": [r.as_dict() for r in results]}
        print(json.dumps(report))


def _list(folders: list[Path]) -> int:
    for name in suite_names(folders):
        print(f"{name:<20}{printable(read_suite(find_suite(name, folders)).title)}")
    return OK


def _key(name: str) -> str:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The key file cannot be read: {error}.") from error
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigurationError(f"The key file {name} holds no key.")
    return keys[0]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def _complain(error: Exception, as_json: bool) -> None:
    print(f"llm-suite: {printable(str(error))}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": printable(str(error))}))
