"""How much of an engine a request takes, before it has run: slots, and tokens of a context that
conversations share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_provider.server.routes import Route

_BYTES_A_TOKEN = 3
# Fields of the most tokens of an answer, in each route's name.
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


@dataclass(frozen=True)
class TokenEstimate:
    """What a request takes: its size in bytes, the most tokens of an answer, and how many answers
    it asks for at once, each of which takes a slot.
    """

    size: int = 0
    most: int | None = None
    answers: int = 1

    @classmethod
    def of(cls, raw: bytes, body: dict[str, Any], route: Route) -> TokenEstimate:
        """Return the estimate for a request's body."""
        limits = (body.get(name) for name in _LIMITS)
        most = next((each for each in limits if isinstance(each, int) and each > 0), None)
        return cls(len(raw), most, _answers(body, route))

    def tokens(self, share: float) -> float:
        """Return the estimated tokens. `share` is what each conversation may count on; half of it
        is kept for an answer that nobody bounds. A token is seldom less than three bytes of JSON.
        """
        answer = share / 2 if self.most is None else self.most
        return self.size / _BYTES_A_TOKEN + self.answers * answer


def _answers(body: dict[str, Any], route: Route) -> int:
    """How many answers are asked for: `n` to each prompt, of which some routes take a list."""
    count = body.get("n") if route.streams else None
    each = count if isinstance(count, int) and count > 0 else 1
    prompts = body.get(route.required.name) if route.batch else None
    # A list with a number in it is one prompt, as tokens.
    if not isinstance(prompts, list) or any(isinstance(prompt, int) for prompt in prompts):
        return each
    return each * max(1, len(prompts))


NOTHING = TokenEstimate()
