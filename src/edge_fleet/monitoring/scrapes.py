"""What Prometheus scrapes: the chat API of each host, at three paths, by a key of its own."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from edge_fleet.client_keys import monitoring_key

Hosts = Mapping[str, Mapping[str, Any]]
JOBS = {"chat-api": "/metrics", "engine": "/metrics/engine", "node": "/metrics/node"}
"""The jobs, as alerts and dashboard name them, and their paths."""
NO_METRICS = ("ollama",)
"""Engines without metrics of their own (`llm_provider.providers.support.METRICS`)."""


def scrape_configs(
    hosts: Hosts, names: Sequence[str], folder: str, read: Callable[[str], str | None]
) -> list[dict[str, Any]]:
    """The scrape configurations of the hosts. They hold keys.

    hosts: `hostvars`; folder: that of the clients' files (`control_files.client_environment`) on
    the control machine; read: returns the text of a file there, None where there is none. Address
    and key are those of the last run: a host that cannot be reached now, or is not part of this
    run, stays monitored. A host that was never deployed has no such file, and is left out.
    """
    found = []
    for name in names:
        client = _variables(read(f"{folder}/{name}.env") or "")
        if not client:
            continue
        url = urlsplit(client["OPENAI_BASE_URL"])
        path = url.path.removesuffix("/v1").rstrip("/")
        authorities = read(client["NODE_EXTRA_CA_CERTS"]) if "NODE_EXTRA_CA_CERTS" in client else ""
        key = monitoring_key(client["OPENAI_API_KEY"], name)
        for job, metrics in JOBS.items():
            if job == "engine" and _provider(hosts, name) in NO_METRICS:
                continue
            found.append(
                {
                    "job_name": f"{job}/{name}",
                    "scheme": url.scheme,
                    "metrics_path": path + metrics,
                    "authorization": {"credentials": key},
                    # The key is for this address alone.
                    "follow_redirects": False,
                    **({"tls_config": {"ca": authorities}} if authorities else {}),
                    # The job's name stands once for each host; alerts know it without.
                    "static_configs": [
                        {"targets": [url.netloc], "labels": {"job": job, "host": name}}
                    ],
                }
            )
    return found


def _variables(text: str) -> dict[str, str]:
    """The variables of a clients' file; empty where it has not what a client needs."""
    lines = [line.partition("=") for line in text.splitlines() if "=" in line]
    found = {name: "".join(shlex.split(value)) for name, _, value in lines}
    return found if {"OPENAI_BASE_URL", "OPENAI_API_KEY"} <= set(found) else {}


def _provider(hosts: Hosts, name: str) -> str:
    """The engine of a host that is planned in this run; empty for any other."""
    plan = hosts[name].get("preflight_plan")
    return str(plan["provider"]) if plan and not plan["problems"] else ""
