"""The Grafana dashboard, as code: rows of panels, each with its queries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

DATASOURCE = "edge-llm-prometheus"
"""The uid of the data source, which Grafana's provisioning has."""
UID = "edge-llm"
_COLUMNS = 24
_HEIGHT = 8
_QUANTILES = (0.5, 0.95)
_ASKED = ', route!~"/metrics.*|/health|/ready"'
"""Without the requests of monitoring and of health checks."""


@dataclass(frozen=True)
class Query:
    """A query of Prometheus, and the name of its lines."""

    expression: str
    legend: str = "{{host}}"


@dataclass(frozen=True)
class Panel:
    """A panel: a graph, or the present values (`stat`). `unit` is Grafana's name of it."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    description: str = ""


def _one(title: str, expression: str, unit: str = "short", legend: str = "{{host}}") -> Panel:
    return Panel(title, (Query(expression, legend),), unit)


def _of(metric: str, more: str = "") -> str:
    """A metric of the chosen hosts."""
    return f'{metric}{{host=~"$host"{more}}}'


def _rate(metric: str, by: str = "host", more: str = "") -> str:
    return f"sum by ({by}) (rate({_of(metric, more)}[$__rate_interval]))"


def _quantile(share: float) -> Query:
    buckets = f"rate({_of('edge_llm_ttft_seconds_bucket')}[$__rate_interval])"
    return Query(
        f"histogram_quantile({share}, sum by (host, le) ({buckets}))",
        f"{{{{host}}}} p{share * 100:g}",
    )


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Fleet",
        (
            Panel("Hosts that answer", (Query(_of("up", ', job="chat-api"')),), kind="stat"),
            Panel("Engines that are ready", (Query(_of("edge_llm_engine_ready")),), kind="stat"),
            Panel(
                "Alerts that fire",
                (
                    Query(
                        'sum by (alertname) (ALERTS{alertstate="firing"}) or vector(0)',
                        "{{alertname}}",
                    ),
                ),
                kind="stat",
            ),
        ),
    ),
    (
        "Requests",
        (
            Panel(
                "Time to the first token",
                tuple(map(_quantile, _QUANTILES)),
                "s",
                description="Of streamed answers.",
            ),
            _one(
                "Tokens of answers per second",
                _rate("edge_llm_tokens_total", more=', direction="out"'),
            ),
            _one(
                "Requests by outcome",
                _rate("edge_llm_requests_total", "host, outcome", _ASKED),
                "reqps",
                "{{host}} {{outcome}}",
            ),
            Panel(
                "Queue",
                (
                    Query(_of("edge_llm_requests_in_flight"), "{{host}} at the engine"),
                    Query(_of("edge_llm_requests_queued"), "{{host}} queued"),
                    Query(_of("edge_llm_requests_held"), "{{host}} held"),
                ),
            ),
            _one(
                "Tokens by key",
                _rate("edge_llm_tokens_total", "key, direction"),
                legend="{{key}} {{direction}}",
            ),
            _one("Connections", _of("edge_llm_connections")),
        ),
    ),
    (
        "Board",
        (
            _one("Temperature", _of("edge_llm_board_temperature_celsius"), "celsius"),
            _one("Slowed down", _of("edge_llm_board_throttled"), legend="{{host}} {{reason}}"),
            _one("Power", _of("edge_llm_board_power_watts"), "watt", "{{host}} {{rail}}"),
            _one(
                "Processor in use",
                "1 - avg by (host) (rate("
                + _of("node_cpu_seconds_total", ', mode="idle"')
                + "[$__rate_interval]))",
                "percentunit",
            ),
            _one(
                "Memory in use",
                "1 - "
                + _of("node_memory_MemAvailable_bytes")
                + " / "
                + _of("node_memory_MemTotal_bytes"),
                "percentunit",
            ),
            _one("Free disk", _of("edge_llm_board_disk_free_bytes"), "bytes"),
            _one("Drift", _of("edge_llm_board_drift"), legend="{{host}} {{subject}}"),
            _one(
                "Certificate ends in",
                f"{_of('edge_llm_certificate_expiry_timestamp_seconds')} - time()",
                "s",
            ),
        ),
    ),
    (
        "Engine (llama.cpp)",
        (
            _one("Prompt tokens per second", _rate("llamacpp:prompt_tokens_total")),
            _one("Generated tokens per second", _rate("llamacpp:tokens_predicted_total")),
            _one("Requests in the engine", _of("llamacpp:requests_processing")),
        ),
    ),
)


def queries() -> list[str]:
    """Every query of the dashboard, each once."""
    found = [each.expression for _, panels in ROWS for panel in panels for each in panel.queries]
    return list(dict.fromkeys(found))


def dashboard() -> str:
    """The dashboard as Grafana reads it, a JSON text."""
    panels: list[dict[str, Any]] = []
    line = 0
    for title, row in ROWS:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": line, "w": _COLUMNS, "h": 1},
                "panels": [],
            }
        )
        line += 1
        width = _COLUMNS // min(len(row), 3)
        for number, panel in enumerate(row):
            x = number * width % _COLUMNS
            if number and x == 0:
                line += _HEIGHT
            panels.append(
                _panel(panel, len(panels) + 1)
                | {"gridPos": {"x": x, "y": line, "w": width, "h": _HEIGHT}}
            )
        line += _HEIGHT
    return json.dumps(
        {
            "uid": UID,
            "title": "edge-llm",
            "tags": ["edge-llm"],
            "schemaVersion": 41,
            "editable": False,
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "templating": {"list": [_host_variable()]},
            "panels": panels,
        },
        indent=1,
    )


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": DATASOURCE}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": source,
                "expr": each.expression,
                "legendFormat": each.legend,
                "instant": panel.kind == "stat",
                "range": panel.kind != "stat",
            }
            for place, each in enumerate(panel.queries)
        ],
    }


def _host_variable() -> dict[str, Any]:
    """The choice of hosts at the top of the dashboard."""
    query = 'label_values(up{job="chat-api"}, host)'
    return {
        "name": "host",
        "label": "Host",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": DATASOURCE},
        "query": {"query": query, "refId": "hosts"},
        "definition": query,
        "includeAll": True,
        "multi": True,
        "refresh": 2,
        "current": {"text": ["All"], "value": ["$__all"]},
    }
