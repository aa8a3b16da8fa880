"""How fast the engine is when it is asked on its host, without the chat API's queue and network."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from ..constants import API_UID, ENGINE_KEY, ENGINE_PORT, ENGINE_UID, KIB, SECRETS
from ..foreign import read_bytes
from ..json_data import Facts, objects, parse_json

_MOST_LINE = 1024 * KIB


class EngineError(Exception):
    """Why the engine has no figures; a message without its full stop."""


def ask_engine(
    root: Path,
    model: str,
    prompt: str,
    max_tokens: int,
    requests: int,
    timeout: float,
    port: int = ENGINE_PORT,
) -> Facts:
    """Ask the engine at its port, one request after the other, and return its speed.

    {"requests", "ttft_ms", "prompt_tokens", "prompt_tokens_per_second", "tokens",
    "tokens_per_second" (the pace after the first token)}: medians, by the formulas of
    `llm-provider bench`. The first of the requests is not counted. Raises EngineError.
    """
    try:
        key = read_bytes(root / SECRETS / ENGINE_KEY, {API_UID, ENGINE_UID}, KIB).decode().strip()
    except (OSError, ValueError) as error:
        raise EngineError(f"the engine's key cannot be read: {error}") from error
    answers = [
        # Each begins otherwise, so that no prompt is in the engine's memory already.
        _ask(port, key, model, f"{number}. {prompt}", max_tokens, timeout)
        for number in range(requests + 1)
    ][1:]
    paces = [each["pace"] for each in answers if each["pace"]]
    reads = [each["prompt_tokens"] / each["ttft"] for each in answers if each["prompt_tokens"]]
    return {
        "requests": len(answers),
        "ttft_ms": round(statistics.median(each["ttft"] for each in answers) * 1000, 2),
        "prompt_tokens": sum(each["prompt_tokens"] or 0 for each in answers),
        "prompt_tokens_per_second": round(statistics.median(reads), 1) if reads else None,
        "tokens": sum(each["tokens"] for each in answers),
        "tokens_per_second": round(statistics.median(paces), 2) if paces else None,
    }


def _ask(port: int, key: str, model: str, prompt: str, max_tokens: int, timeout: float) -> Facts:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "seed": 0,
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Connection": "close",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    begun = time.monotonic()
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            text = response.read(2000).decode(errors="replace")
            raise EngineError(f"the engine answered with status {response.status}: {text.strip()}")
        return _timed(begun, list(_events(response)))
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(f"the engine at port {port} does not answer: {error!r}") from error
    finally:
        connection.close()


def _events(response: http.client.HTTPResponse) -> Iterator[Tuple[float, Facts]]:
    """Each event of a stream with the time at which it arrived."""
    while True:
        line = response.readline(_MOST_LINE)
        if not line:
            return
        data = line.strip()
        if data.startswith(b"data:"):
            event = parse_json(data[len(b"data:") :].decode(errors="replace"))
            if isinstance(event, dict):
                yield time.monotonic(), event


def _timed(begun: float, events: List[Tuple[float, Facts]]) -> Facts:
    """{"ttft", "pace" (None where all came at once), "tokens", "prompt_tokens"}."""
    times, usage = [], {}
    for arrived, event in events:
        for choice in objects(event.get("choices"))[:1]:
            delta = choice.get("delta")
            if isinstance(delta, dict) and any(
                delta.get(name) for name in ("content", "reasoning_content", "reasoning")
            ):
                times.append(arrived)
        if isinstance(event.get("usage"), dict):
            usage = event["usage"]
    if not times:
        raise EngineError("the engine gave an answer without text")
    tokens = usage.get("completion_tokens")
    tokens = tokens if isinstance(tokens, int) else len(times)
    prompt: Optional[int] = usage.get("prompt_tokens")
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    later = sum(each > times[0] for each in times)
    pace = tokens * later / len(times) / (times[-1] - times[0]) if later else None
    return {
        "ttft": times[0] - begun,
        "pace": pace,
        "tokens": tokens,
        "prompt_tokens": max(0, prompt - (cached if isinstance(cached, int) else 0))
        if isinstance(prompt, int)
        else None,
    }
