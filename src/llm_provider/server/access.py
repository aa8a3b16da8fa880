"""Who may ask, and how often: dependencies of the routes."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi import Request

from llm_provider.server.api_errors import APIError
from llm_provider.server.connection_guard import address_group
from llm_provider.server.key_store import Key, KeyStore, Refusal, is_basic
from llm_provider.server.rate_limit import Rate, RateLimiter, retry_after

WRONG_KEYS = Rate(per_minute=20, burst=20)
"""How many wrong keys one address may present. A valid key is accepted also beyond them, so that
one client locks out no other one at its address.
"""

CHALLENGES = 'Bearer, Basic realm="edge-llm"'
"""What a 401 asks for, as its WWW-Authenticate. A browser asks its user for Basic's password."""


class Access:
    """Checks the API keys of requests, and their rates.

    Pages of `origins` may use the password that a browser keeps for this address.
    """

    def __init__(self, keys: KeyStore, rates: RateLimiter, origins: Collection[str]) -> None:
        self._keys = keys
        self._rates = rates
        self._origins = origins
        self._wrong = RateLimiter()

    async def check_key(self, request: Request) -> None:
        """As `check_metrics_key`. Raises APIError 403, too, for a key of metrics alone."""
        await self.check_metrics_key(request)
        key: Key = request.state.key
        if key.metrics_only:
            raise APIError(
                403,
                f"The key {key.name} opens the metrics alone. Send the key of a client.",
                code="key_for_metrics_only",
            )

    async def check_metrics_key(self, request: Request) -> None:
        """Set `request.state.key`. Raises APIError 401 without a valid key, 429 after many wrong
        ones, and 403 for a page whose browser may have sent the key by itself.
        """
        authorization = request.headers.get("authorization")
        self._check_origin(request, authorization)
        found = self._keys.find(authorization, request.headers.get("x-api-key"))
        if isinstance(found, Refusal):
            if found is Refusal.UNKNOWN:
                self._count_wrong_key(request)
            raise APIError(
                401,
                found.value,
                code="expired_api_key" if found is Refusal.EXPIRED else "invalid_api_key",
                headers={"WWW-Authenticate": CHALLENGES},
            )
        request.state.key = found
        request.state.notes["key"] = found.name

    def _count_wrong_key(self, request: Request) -> None:
        address = request.client.host if request.client else ""
        seconds = self._wrong.take(address_group(address) if address else "", WRONG_KEYS)
        if seconds:
            raise APIError(
                429,
                f"{address or 'This client'} has sent more than {WRONG_KEYS.burst} wrong API keys. "
                f"Correct the key, or try again in {retry_after(seconds)} s.",
                type="rate_limit_error",
                code="too_many_wrong_keys",
                headers={"Retry-After": retry_after(seconds)},
            )

    def _check_origin(self, request: Request, authorization: str | None) -> None:
        # Once its user has typed a password, a browser sends it with the requests of any page, and
        # asks beforehand (CORS) only where a request is not like one of a form.
        origin = request.headers.get("origin")
        if origin is None or not is_basic(authorization) or origin in self._origins:
            return
        if urlsplit(origin).netloc != request.headers.get("host"):
            raise APIError(
                403,
                f"A page of {origin} may not use the password that the browser keeps for this "
                "address. Send the key as Authorization: Bearer KEY, or have the origin added to "
                "llm_cors_origins.",
                code="origin_not_allowed",
            )

    async def check_rate(self, request: Request) -> None:
        """Count the request, whose key is known. Raises APIError 429 above the key's rate."""
        key: Key = request.state.key
        seconds = self._rates.take(key.name, key.rate)
        if seconds and key.rate is not None:
            raise APIError(
                429,
                f"The key {key.name} allows {key.rate.per_minute:g} requests per minute, "
                f"{key.rate.burst} of them at once. Send the request again in "
                f"{retry_after(seconds)} s.",
                type="rate_limit_error",
                code="rate_limit_exceeded",
                headers={"Retry-After": retry_after(seconds)},
            )

    def give_back(self, key: Key) -> None:
        """Do not count a request that found no place in the queue: it may come again soon."""
        self._rates.give_back(key.name)
