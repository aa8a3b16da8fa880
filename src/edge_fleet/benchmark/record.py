"""The result of a benchmark of a host, as its file has it. docs/benchmarks-of-hosts.md has each
field."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

FORMAT: Literal[1] = 1
SETTINGS = (
    "CTX_SIZE",
    "PARALLEL",
    "N_GPU_LAYERS",
    "THREADS",
    "BATCH",
    "UBATCH",
    "FLASH_ATTENTION",
    "CACHE_TYPE",
)
"""Variables of a release's .env that decide its speed."""


class _Part(BaseModel):
    """Further fields are those of a later version."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Milliseconds(_Part):
    """Times to the first token: the median, and what 95 of 100 stay below."""

    p50: float | None
    p95: float | None


class Users(_Part):
    """What the host did for so many users at the same time."""

    users: int
    requests: int
    failed: int
    failures: dict[str, int]
    seconds: float
    ttft_ms: Milliseconds
    prompt_tokens: int
    tokens: int
    prompt_tokens_per_second: float | None
    tokens_per_second: float | None
    """All users together, from the first request to the last token."""
    tokens_per_second_each: float | None
    """One user's, after the first token: the median."""
    watts: float | None
    joules_per_token: float | None
    gpu_percent: float | None


class Engine(_Part):
    """The engine without the chat API's queue and the network."""

    asked: dict[str, Any] | None
    asked_problem: str
    llama_bench: dict[str, Any] | None
    llama_bench_problem: str


class Moment(_Part):
    """A board before or after the load."""

    temperature: float | None
    clocks: dict[str, int]


class Load(_Part):
    """What the host was asked; results of different loads are not compared."""

    prompt_tokens: int | None
    max_tokens: int
    users: tuple[int, ...]


class Record(_Part):
    """The result of one benchmark of one host."""

    format: Literal[1] = FORMAT
    host: str
    at: str
    board: str
    model: str
    quantization: str
    provider: str
    image: str
    release: int | None
    settings: dict[str, str]
    power_mode: str | None
    load: Load
    users: tuple[Users, ...]
    engine: Engine
    memory_used: int | None
    gpu_memory: int | None
    watts_of: str | None
    before: Moment | None
    after: Moment | None
    throttled: tuple[str, ...]
    sensors_problem: str
    baseline: bool

    @property
    def failed(self) -> int:
        return sum(level.failed for level in self.users)

    @property
    def usable(self) -> bool:
        """Whether it may be a baseline: the board ran at its full speed, and no request failed."""
        return not self.throttled and not self.failed and bool(self.users)

    @property
    def settings_id(self) -> str:
        """Names image and settings in the path of the file."""
        text = json.dumps([self.image, self.power_mode, sorted(self.settings.items())])
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def path(self) -> str:
        """The path of its file below the folder of results."""
        place = (self.board, self.model, f"{self.provider}-{self.settings_id}")
        moment = self.at.replace(":", "").replace("-", "")
        return "/".join([*map(_file_name, place), f"{_file_name(self.host)}-{moment}.json"])

    @property
    def api_share(self) -> float | None:
        """The pace through the chat API over that of the engine asked on its host, for one user."""
        alone = (self.engine.asked or {}).get("tokens_per_second")
        mine = next((each.tokens_per_second_each for each in self.users if each.users == 1), None)
        return mine / alone if mine and alone else None

    def measures_as(self, other: Record) -> bool:
        """Whether both measure the same: a change of the engine or of settings is what differs."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("host", "board", "model", "quantization", "load")
        )

    def figures(self) -> dict[str, float | None]:
        """The speeds by which two results are compared, in tokens per second."""
        found: dict[str, float | None] = {}
        for level in self.users:
            users = f"{level.users} user{'s' if level.users != 1 else ''}"
            if level.users == 1:
                found[f"prompt at {users}"] = level.prompt_tokens_per_second
            found[f"generation at {users}"] = level.tokens_per_second
        return found

    def text(self) -> str:
        """The content of its file."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"


def settings_of(plan: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a release's plan that decide its speed."""
    environment = plan["environment"]
    return {name: str(environment[name]) for name in SETTINGS if name in environment}


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") or "unknown"
