"""The alert rules: their cases by promtool, and the metrics that rules and dashboard ask for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_fleet.monitoring.dashboard import queries
from edge_fleet.monitoring.scrapes import JOBS
from edge_host.readings import FILE, read_board_metrics
from llm_provider.server import connection_metrics
from llm_provider.server import metrics as api_metrics

ROOT = Path(__file__).parents[3]
RULES = ROOT / "roles/monitoring/files/alerts.yml"
CASES = ROOT / "tests/unit/project/alerts_test.yml"
# Of the programs of others; the suite `monitoring` reads them from the real ones.
OTHERS = {
    "up",
    "ALERTS",
    *("node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes"),
    "node_textfile_mtime_seconds",
    *("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"),
    "llamacpp:requests_processing",
}
PROMTOOL = shutil.which("promtool")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def cases() -> list[dict[str, Any]]:
    return list(yaml.safe_load(CASES.read_text())["tests"])


def write_cases(folder: Path, text: str) -> Path:
    """Write the rules with this text, and the cases for them; returns the cases."""
    (folder / "alerts.yml").write_text(text)
    path = folder / "cases.yml"
    path.write_text(CASES.read_text().replace("[RULES]", "[alerts.yml]"))
    return path


# The suite `monitoring` runs the same cases by the sandbox's promtool, and skips nothing.
@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on this machine")
def test_the_cases_by_promtool(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    command = [PROMTOOL, "test", "rules"]
    done = subprocess.run(
        [*command, write_cases(tmp_path, RULES.read_text())], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # And with rules that never fire, they fail.
    never = re.sub(r"for: \d+m", "for: 9h", RULES.read_text())
    done = subprocess.run([*command, write_cases(tmp_path, never)], capture_output=True, text=True)
    assert done.returncode == 1


def test_every_alert_has_a_case_in_which_it_fires_and_clears() -> None:
    names = [each["alert"] for each in rules()]
    assert [each["name"] for each in cases()] == names
    for case in cases():
        checks = case["alert_rule_test"]
        assert {each["alertname"] for each in checks} == {case["name"]}
        fires = [bool(each.get("exp_alerts")) for each in checks]
        assert (fires[0], any(fires), fires[-1]) == (False, True, False), case["name"]


def test_alerts_say_what_and_where() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].startswith("{{ $labels.host }}: ")
        assert rule["annotations"]["description"].endswith(".")


def own_metrics() -> set[str]:
    """The metrics of the chat API, by its source, and those of the readings."""
    text = "".join(
        Path(str(each.__file__)).read_text() for each in (api_metrics, connection_metrics)
    )
    names = set(re.findall(r'"(edge_llm_\w+)"', text))
    names |= {f"edge_llm_{name}" for name in re.findall(r'\("(\w+)", "', text)}
    suffixes = ("", "_total", "_bucket", "_count", "_sum")
    board = {each.name for each in read_board_metrics(ROOT)}
    return {f"{name}{suffix}" for name in names for suffix in suffixes} | board


def asked(expression: str) -> set[str]:
    """The metrics that a query asks for."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\b(?:by|on) \([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b\w+ *\(", "(", bare)  # functions
    words = set(re.findall(r"[a-zA-Z_:][\w:]*", bare))
    return {each for each in words if ":" in each or "_" in each or each in OTHERS}


def test_metrics_of_rules_and_dashboard_exist() -> None:
    expressions = [*queries(), *(each["expr"] for each in rules())]
    wanted = set().union(*map(asked, expressions))
    assert len(wanted) > 20
    assert wanted - own_metrics() - OTHERS == set()
    # What nothing asks for is not listed here either.
    assert OTHERS - wanted == set()


def test_a_metric_that_does_not_exist_is_found() -> None:
    found = asked('max by (host_x) (rate(edge_llm_nothing_total{host=~"$host"}[5m])) / time()')
    assert found == {"edge_llm_nothing_total"}
    assert found - own_metrics() == found


def test_jobs_and_files_are_those_that_there_are() -> None:
    text = "".join([*queries(), *(each["expr"] for each in rules())])
    assert set(re.findall(r'job="([\w-]+)"', text)) <= set(JOBS)
    assert FILE in CASES.read_text()
