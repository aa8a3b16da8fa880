"""How many tokens a request takes of a context that conversations share, before it has run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_BYTES_A_TOKEN = 3
# Fields of the most tokens of an answer, in each route's name.
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


@dataclass(frozen=True)
class TokenEstimate:
    """What a request asks of a context that is shared: its size in bytes, and its most tokens."""

    size: int = 0
    most: int | None = None

    @classmethod
    def of(cls, raw: bytes, body: dict[str, Any]) -> TokenEstimate:
        """Return the estimate for a request's body."""
        for name in _LIMITS:
            most = body.get(name)
            if isinstance(most, int) and most > 0:
                return cls(len(raw), most)
        return cls(len(raw))

    def tokens(self, share: float) -> float:
        """Return the estimated tokens. `share` is what each conversation may count on; half of it
        is kept for an answer that nobody bounds. A token is seldom less than three bytes of JSON.
        """
        return self.size / _BYTES_A_TOKEN + (share / 2 if self.most is None else self.most)


NOTHING = TokenEstimate()
