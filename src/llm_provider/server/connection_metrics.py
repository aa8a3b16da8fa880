"""What is counted of connections, for Prometheus, and when the certificate ends."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llm_provider.server.connection_guard import ConnectionGuard
from llm_provider.server.tls import Certificate


class ConnectionCollector(Collector):
    """The guard's counts, and the certificate's end, read when asked for."""

    def __init__(self, guard: ConnectionGuard, certificate: Certificate | None) -> None:
        self._guard = guard
        self._certificate = certificate

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "edge_llm_connections",
            "Connections over the network.",
            len(self._guard.over_network()),
        )
        yield CounterMetricFamily(
            "edge_llm_connections_refused",
            "Connections refused, or ended for what they sent.",
            self._guard.refused,
        )
        yield CounterMetricFamily(
            "edge_llm_connections_not_allowed",
            "Connections closed at once: their address is outside the allowed networks.",
            self._guard.not_allowed,
        )
        yield CounterMetricFamily(
            "edge_llm_connections_evicted",
            "Idle connections closed in favour of others.",
            self._guard.evicted,
        )
        if self._certificate is not None:
            yield GaugeMetricFamily(
                "edge_llm_certificate_expiry_timestamp_seconds",
                "When the certificate for HTTPS ends, in Unix time.",
                self._certificate.expires,
            )
