"""The schema of published_speeds.yml: speeds of boards that others have published."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Figure(BaseModel):
    """Tokens per second of one user on a board, and who says so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    board: str
    """As host_info names boards of its kind."""
    variant: str = ""
    model: str
    quantization: str
    engine: str
    """The engine that was measured, with its version where that is known."""
    generation: float = Field(gt=0)
    prompt: float | None = Field(None, gt=0)
    watts: float | None = Field(None, gt=0)
    note: str = ""
    source: str = Field(pattern=r"^https://")
    date: str
    """Of the source, or when the figure was read in it."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    figures: list[Figure]


def parse_published(text: str, name: str = "published_speeds.yml") -> list[Figure]:
    """The figures of the file. Raises ValueError, with a message."""
    try:
        return _File.model_validate(yaml.safe_load(text)).figures
    except (yaml.YAMLError, ValidationError) as error:
        first = str(error).replace("\n", "; ")
        raise ValueError(f"{name} is invalid: {first}. Correct the file.") from error


def read_published(path: str) -> list[Figure]:
    """The figures of a file; none where there is no such file."""
    file = Path(path)
    return parse_published(file.read_text(encoding="utf-8"), file.name) if file.exists() else []
