"""Handlers of the routes that the engine answers: from a request to the engine's answer.

A request gets its place in the queue before its body is read: what finds none costs no memory. Then
the body is read, as soon as there is memory for it, and only the fields that the chat API needs are
decoded; the rest goes to the engine as the bytes that came.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from llm_provider.server.access import Access
from llm_provider.server.admission import AdmissionQueue
from llm_provider.server.answer import EngineAnswer, Question, StreamedAnswer, WholeAnswer
from llm_provider.server.body import Body, declared_size, read_body
from llm_provider.server.body_budget import BodyBudget
from llm_provider.server.fields import Fields
from llm_provider.server.key_store import Key
from llm_provider.server.models import Models
from llm_provider.server.refusal import BODY_READ
from llm_provider.server.remote_images import refuse_remote_images
from llm_provider.server.route import Route
from llm_provider.server.settings import ServerSettings
from llm_provider.server.ticket import QueueFull, Ticket
from llm_provider.server.token_estimate import TokenEstimate, measure_prompt
from llm_provider.server.translator import Asked

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Proxy:
    """The handlers of the routes, and the state that they share."""

    queue: AdmissionQueue
    models: Models
    access: Access
    budget: BodyBudget
    settings: ServerSettings

    def handler(self, route: Route) -> Handler:
        """Return the handler of a route."""

        async def handle(request: Request) -> Response:
            return EngineResponse(self, route, request)

        handle.__name__ = route.name
        handle.__doc__ = f"Served where the engine offers {route.feature.name}."
        return handle

    def check(self, route: Route, model: str | None) -> None:
        """Raise what is wrong where the engine of the moment cannot serve the route, or the model.

        Unsupported and APIError.
        """
        engine = self.queue.engine.provider.name
        route.feature.path(engine, self.models.task)
        self.models.check(model)


class EngineResponse(Response):
    """The response to one request: everything from its place in the queue to its end."""

    def __init__(self, proxy: Proxy, route: Route, request: Request) -> None:
        super().__init__()
        self._proxy = proxy
        self._route = route
        self._request = request
        self._arrived = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. Raises ClientDisconnect when the client leaves; the engine stops at once then."""
        key: Key = self._request.state.key
        try:
            async with self._proxy.queue.place(self._arrived, key.name, key.share) as ticket:
                with await self._read(ticket, scope, receive) as body:
                    fields = self._examine(body)
                    if (own := self._route.own_answer(fields, self._proxy.models)) is not None:
                        await JSONResponse(dict(own))(scope, receive, send)
                        return
                    question = self._question(body, fields)
                    kind = StreamedAnswer if question.asked.stream else WholeAnswer
                    await self._until_client_leaves(kind(ticket, question, send), receive)
        except QueueFull:
            self._proxy.access.give_back(key)
            raise

    async def _read(self, ticket: Ticket, scope: Scope, receive: Receive) -> Body:
        limits = self._proxy.settings.limits
        async with ticket.arriving():
            body = await read_body(
                receive,
                self._proxy.budget,
                key=ticket.key,
                most=limits.max_body_bytes,
                seconds=limits.body_seconds,
                declared=declared_size(scope["headers"]),
            )
        scope["state"][BODY_READ] = True
        return body

    def _examine(self, body: Body) -> Fields:
        """Decode the fields that decide, and refuse what cannot be asked."""
        fields = self._route.read(body.data, self._request.scope["headers"])
        self._request.state.route = self._route = route = self._route.of_body(fields)
        route.required.check(fields, route.required.name)
        route.check(fields)
        refuse_remote_images(body.data, fields)
        self._proxy.check(route, fields.model)
        return fields

    def _question(self, body: Body, fields: Fields) -> Question:
        route, state, model = self._route, self._request.state, fields.model
        stream, headers = route.wants_stream(fields), self._request.scope["headers"]
        return Question(
            asked=Asked(
                route,
                fields,
                stream,
                state.request_id,
                headers,
                self._proxy.settings.image_tokens,
            ),
            arrived=self._arrived,
            estimate=self._estimate(body, fields),
            comment_seconds=self._proxy.settings.comment_seconds,
            notes=state.notes,
            check=lambda: self._proxy.check(route, model),
        )

    def _estimate(self, body: Body, fields: Fields) -> TokenEstimate:
        route = self._route
        number = fields.small("n") if route.streams else None
        each = number if isinstance(number, int) and number > 0 else 1
        prompts = fields.count(route.required.name) if route.batch else 1
        prompt = measure_prompt(body.data).tokens(self._proxy.settings.image_tokens)
        return TokenEstimate(prompt, route.most_tokens(fields), each * prompts)

    async def _until_client_leaves(self, answer: EngineAnswer, receive: Receive) -> None:
        work = asyncio.create_task(answer.send())
        left = asyncio.create_task(_leave(receive))
        try:
            await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
            work.result()
        except asyncio.CancelledError:
            if not self._proxy.queue.stopping:
                raise
            # The time that a stop allows is over: tell, rather than just break off.
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await answer.cut_off()
        finally:
            left.cancel()
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)


async def _leave(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
