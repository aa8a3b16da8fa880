"""Verifies the chat APIs of many hosts from one process, as `llm-provider check` does one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llm_provider.cli.actions import wanted_of
from llm_provider.cli.arguments import build_parser
from llm_provider.cli.check import check
from llm_provider.errors import ConfigurationError


@dataclass(frozen=True)
class Served:
    """A chat API: the arguments of `llm-provider check`, and the key of a client."""

    arguments: list[str]
    key: str


def verify_hosts(
    hosts: Mapping[str, Served], parallel: int, seconds: float, show: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """The report of each host, at most `parallel` at a time.

    seconds: how long a host may take at most to be ready, and for each answer. A chat API that
    could not be verified has a report with `ok` false and the reason as its only check. show:
    prints a line of progress.
    """
    return asyncio.run(_verify_all(hosts, parallel, seconds, show)) if hosts else {}


async def _verify_all(
    hosts: Mapping[str, Served], parallel: int, seconds: float, show: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    free = asyncio.Semaphore(max(parallel, 1))
    reports: dict[str, dict[str, Any]] = {}

    async def verify(name: str, host: Served) -> None:
        async with free:
            reports[name] = await _verify(host, seconds)

    async def tell() -> None:
        while True:
            await asyncio.sleep(5)
            show(f"... {len(reports)} of {len(hosts)} hosts verified")

    telling = asyncio.create_task(tell())
    try:
        await asyncio.gather(*(verify(name, host) for name, host in hosts.items()))
    finally:
        telling.cancel()
    return reports


async def _verify(host: Served, seconds: float) -> dict[str, Any]:
    try:
        arguments = build_parser().parse_args(host.arguments)
        wanted = wanted_of(arguments)
        report = await check(
            arguments.url,
            host.key,
            replace(wanted, seconds=min(wanted.seconds, seconds)),
            verify=arguments.ca_file or True,
        )
    except (ConfigurationError, OSError, SystemExit, ValueError) as error:
        # SystemExit is how the parser refuses arguments.
        reason = {"name": "verification", "ok": False, "seen": str(error), "wanted": "a result"}
        return {"ok": False, "checks": [reason]}
    return report.as_dict()
