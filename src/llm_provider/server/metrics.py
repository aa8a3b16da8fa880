"""What the chat API counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0, generate_latest
from prometheus_client.registry import Collector

from llm_provider.server.admission import AdmissionQueue
from llm_provider.server.body_budget import BodyBudget

CONTENT_TYPE = CONTENT_TYPE_PLAIN_1_0_0
NO_KEY = ""
"""The label of requests without a valid key."""
_TTFT = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOTAL = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """One process's counters, in a registry of their own."""

    def __init__(self, queue: AdmissionQueue, budget: BodyBudget) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "edge_llm_requests",
            "Requests answered, by route, by how they ended and by the name of their key.",
            ["route", "outcome", "key"],
            registry=self._registry,
        )
        self._first = Histogram(
            "edge_llm_ttft_seconds",
            "From a streamed request's arrival to the first bytes of its answer.",
            ["route"],
            buckets=_TTFT,
            registry=self._registry,
        )
        self._total = Histogram(
            "edge_llm_request_seconds",
            "From a request's arrival to the end of its answer.",
            ["route"],
            buckets=_TOTAL,
            registry=self._registry,
        )
        self._tokens = Counter(
            "edge_llm_tokens",
            "Tokens of prompts (in) and of answers (out), as the engine counted them, by key.",
            ["direction", "key"],
            registry=self._registry,
        )
        self._registry.register(_QueueCollector(queue, budget))
        ProcessCollector(registry=self._registry)

    def done(self, route: str, outcome: str, seconds: float, notes: Mapping[str, object]) -> None:
        """Count a request that has ended; `notes` as the log line has them."""
        # Names are those of the key file: what clients make up never becomes a label.
        key = str(notes.get("key", NO_KEY))
        self._requests.labels(route, outcome, key).inc()
        self._total.labels(route).observe(seconds)
        first = notes.get("first_bytes_seconds")
        if isinstance(first, float):
            self._first.labels(route).observe(first)
        for direction in ("in", "out"):
            tokens = notes.get(f"tokens_{direction}")
            if isinstance(tokens, int):
                self._tokens.labels(direction, key).inc(tokens)

    def register(self, collector: Collector) -> None:
        """Add what another part of the process counts."""
        self._registry.register(collector)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)


class _QueueCollector(Collector):
    """The state of queue and engine, read when asked for."""

    def __init__(self, queue: AdmissionQueue, budget: BodyBudget) -> None:
        self._queue = queue
        self._budget = budget

    def collect(self) -> Iterable[Metric]:
        queue = self._queue
        engine = queue.engine
        for name, text, value in (
            ("requests_in_flight", "Requests at the engine.", queue.running + queue.leaving),
            ("requests_queued", "Requests that wait for a slot.", queue.queued),
            ("requests_held", "Requests that wait for the engine to be ready.", queue.held),
            ("requests_arriving", "Requests whose bodies have not arrived.", queue.arriving),
            ("body_bytes", "Memory that bodies of requests take.", self._budget.used),
            ("slots", "Requests that may be at the engine at once.", engine.parallel),
            ("holding", "1 while requests are held on purpose.", int(engine.on_hold)),
        ):
            yield GaugeMetricFamily(f"edge_llm_{name}", text, value)
        ready = GaugeMetricFamily(
            "edge_llm_engine_ready",
            "1 while the engine answers.",
            labels=["provider", "model"],
        )
        ready.add_metric([engine.provider.name, engine.provider.model], int(engine.ready))
        yield ready
