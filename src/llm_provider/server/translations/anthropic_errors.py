"""Errors in the format of Anthropic's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# What every error of OpenAI's has; other keys are figures, such as llama-server's n_prompt_tokens.
_OPENAI = ("message", "type", "code")


def error_type(status: int) -> str:
    """Return Anthropic's error type for an HTTP status."""
    return _TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")


def error_body(
    status: int, error: Mapping[str, Any], request_id: str | None = None
) -> dict[str, Any]:
    """Translate OpenAI's error object for an HTTP status.

    Its code becomes `details.error_code`, which the SDK's exceptions have as `error_code`; beside
    it are the parameter and the engine's figures.
    """
    detail = {
        name: value for name, value in error.items() if name not in _OPENAI and value is not None
    }
    if isinstance(code := error.get("code"), str):
        detail["error_code"] = code
    said: dict[str, Any] = {"type": error_type(status), "message": _message(error)}
    if detail:
        said["details"] = detail
    return {"type": "error", "error": said, "request_id": request_id}


def _message(error: Mapping[str, Any]) -> str:
    words = str(error.get("message") or "The request failed.")
    asked, room = error.get("n_prompt_tokens"), error.get("n_ctx")
    if isinstance(asked, int) and isinstance(room, int):
        # Agents know by these words of Anthropic's API that they must compact their history.
        return f"prompt is too long: {asked} tokens > {room} maximum. {words}"
    return words
