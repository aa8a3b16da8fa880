"""The files of the role monitoring: what its containers and units may do, and where they listen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from edge_fleet.monitoring.dashboard import DATASOURCE
from edge_host.constants import MONITORING_PROJECT, MONITORING_UID

ROLE = Path(__file__).parents[3] / "roles/monitoring"
DIGEST = f"sha256:{'a' * 64}"
PROGRAMS = ("prometheus", "alertmanager", "grafana")
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
SERVICES = ("edge-llm-node.service", "edge-llm-readings.service")
EXPOSURE = 40  # tenths


def render(name: str, **variables: object) -> str:
    """A template as the role renders it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False,  # noqa: S701 - YAML
    )  # fmt: skip
    environment.filters["to_json"] = json.dumps
    given = {name: each for name, each in DEFAULTS.items() if "{{" not in str(each)}
    given |= {
        "__monitoring_uid": MONITORING_UID,
        "__monitoring_images": {each: f"{each}@{DIGEST}" for each in PROGRAMS},
        "__monitoring_exporter": "/opt/edge-llm-monitoring/node_exporter-aaa",
        "__monitoring_readings": "/opt/edge-llm-monitoring/readings",
        "__monitoring_python": "/usr/bin/python3",
        "monitoring_program": {"path": "/opt/edge-llm-monitoring/lib/edge_host-1.pyz"},
        "monitoring_deployment": "/opt/edge-llm",
    }
    return environment.get_template(f"{name}.j2").render(given | variables)


def services(**variables: object) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(render("docker-compose.yml", **variables))
    assert found["name"] == MONITORING_PROJECT
    return dict(found["services"])


@pytest.mark.parametrize("name", PROGRAMS)
def test_containers_are_confined(name: str) -> None:
    service = services()[name]
    assert service["container_name"] == f"{MONITORING_PROJECT}-{name}"
    assert service["image"].endswith(f"@{DIGEST}")
    assert service["user"] == f"{MONITORING_UID}:{MONITORING_UID}"
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] == f"{DEFAULTS['monitoring_memory'][name]}m"
    assert service["pids_limit"] > 0
    assert service["healthcheck"]["test"][0] == "CMD"
    assert "ports" not in service
    written = [each["source"] for each in service["volumes"] if not each.get("read_only")]
    assert written == [f"./data/{name}"]


def test_programs_listen_on_the_host_itself_alone() -> None:
    found = services()
    for name in ("prometheus", "alertmanager"):
        options = [each for each in found[name]["command"] if "listen-address" in each]
        port = DEFAULTS["monitoring_ports"][name]
        assert f"--web.listen-address=127.0.0.1:{port}" in options
        assert "--web.config.file=/etc/edge-llm/web.yml" in found[name]["command"]
    # Its default is all addresses.
    assert "--cluster.listen-address=" in found["alertmanager"]["command"]
    assert found["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    opened = services(monitoring_listen_address="192.0.2.10")
    assert opened["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "192.0.2.10"
    assert opened["prometheus"] == found["prometheus"]


def test_who_asks_needs_the_certificate() -> None:
    settings = yaml.safe_load(render("web.yml"))["tls_server_config"]
    assert settings["client_auth_type"] == "RequireAndVerifyClientCert"
    assert settings["client_ca_file"] == settings["cert_file"]


def test_no_environment_has_a_secret() -> None:
    environment = services()["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"].startswith("/etc/edge-llm/")
    assert [name for name in environment if "PASSWORD" in name and "FILE" not in name] == []


def test_grafana_can_be_left_out() -> None:
    assert list(services(monitoring_grafana=False)) == ["prometheus", "alertmanager"]


def test_the_data_source_is_the_dashboards() -> None:
    found = yaml.safe_load(render("datasources.yml"))["datasources"]
    assert found[0]["uid"] == DATASOURCE
    assert {each["url"] for each in found} == {"https://127.0.0.1:9090", "https://127.0.0.1:9093"}


def test_without_a_receiver_nobody_is_told() -> None:
    found = yaml.safe_load(render("alertmanager.yml"))
    assert found["receivers"] == [{"name": found["route"]["receiver"]}]
    given = [{"name": "chat", "webhook_configs": [{"url": "http://192.0.2.9/"}]}, {"name": "b"}]
    found = yaml.safe_load(render("alertmanager.yml", monitoring_receivers=given))
    assert (found["route"]["receiver"], found["receivers"]) == ("chat", given)


def test_files_with_keys_are_for_one_user_and_never_shown() -> None:
    tasks = yaml.safe_load((ROLE / "tasks/programs.yml").read_text())
    (task,) = [each for each in tasks if each["name"] == "Write the files with keys"]
    assert (task["no_log"], task["diff"]) == (True, False)
    copy = task["ansible.builtin.copy"]
    assert (copy["owner"], copy["mode"]) == ("root", "0440")
    names = re.findall(r"(?m)^  ([\w/.]+): ", (ROLE / "vars/main.yml").read_text())
    assert names == [
        *("prometheus/scrapes.yml", "alertmanager/alertmanager.yml", "tls/pair.pem"),
        "grafana/password",
    ]


def options(name: str) -> dict[str, str]:
    lines = [each for each in render(name).splitlines() if "=" in each and each[0] != "#"]
    return dict(each.split("=", 1) for each in lines)


def test_the_node_exporter_opens_no_port() -> None:
    service, socket = options(SERVICES[0]), options("edge-llm-node.socket")
    assert socket["ListenStream"] == "/opt/edge-llm/engine/node/node.sock"
    assert "--web.systemd-socket" in service["ExecStart"]
    assert "--web.listen-address" not in service["ExecStart"]
    assert (service["IPAddressDeny"], service["DynamicUser"]) == ("any", "yes")
    compose = (ROLE.parents[1] / "templates/docker-compose.yml.j2").read_text()
    assert "CHAT_API_NODE_SOCKET: /run/engine/node/node.sock" in compose
    assert "source: ./engine, target: /run/engine," in compose


def test_the_readings_are_those_of_the_deployment() -> None:
    service = options(SERVICES[1])
    assert service["Environment"] == "EDGE_LLM_ROOT=/opt/edge-llm"
    assert service["ExecStart"] == (
        "/usr/bin/python3 -I /opt/edge-llm-monitoring/lib/edge_host-1.pyz readings"
        " /opt/edge-llm-monitoring/readings"
    )
    assert service["ReadWritePaths"] == "/opt/edge-llm-monitoring/readings"


@pytest.mark.skipif(
    not shutil.which("systemd-analyze")
    or "--offline"
    not in subprocess.run(
        ["systemd-analyze", "--help"], capture_output=True, text=True, check=False
    ).stdout,
    reason="systemd-analyze is older than 250",
)
@pytest.mark.parametrize("name", SERVICES)
def test_units_are_sandboxed(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(render(name))
    words = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}"]
    done = subprocess.run(
        [*words, str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Unknown key" not in done.stderr
