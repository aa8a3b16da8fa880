"""instructor: structured answers by a schema and by a tool."""

from __future__ import annotations

import asyncio

import instructor
import openai
import pytest
from instructor.core import InstructorRetryException

from tests.integration.clients.asking import (
    CALL,
    KEY,
    PARIS,
    QUESTION,
    STORY,
    TOO_LONG,
    Place,
    Weather,
    stops_when_cancelled,
)
from tests.integration.engines.serving import Served


class get_weather(Weather):  # noqa: N801
    """The weather of the next days."""


def client(served: Served, mode: instructor.Mode, key: str = KEY) -> instructor.AsyncInstructor:
    url = f"{served.api.base_url}/v1"
    return instructor.from_openai(
        openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0), mode=mode
    )
