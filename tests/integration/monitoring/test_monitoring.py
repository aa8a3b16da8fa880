"""Real Prometheus and Alertmanager on a board: every query of the dashboard has data, every alert
fires for its cause and clears after it. The waits of the rules are shortened, nothing else.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_fleet.monitoring.dashboard import queries
from sandbox import images, source
from tests.integration.load import FOLDER, Board, board_named
from tests.playing import ROOT, client_file, play
from tests.unit.project.test_alerts import RULES, rules, write_cases
from tests.waiting import until

SERVER, OTHER = "jetson-01", "pi-01"
BOTH = f"{SERVER},{OTHER}"
GROUP = ("-i", "tests/integration/monitoring/hosts.yml")
PROMETHEUS, ALERTMANAGER = ("edge-llm-monitoring-prometheus", "edge-llm-monitoring-alertmanager")
CLIENT = "--http.config.file=/etc/edge-llm/client.yml"
SENSORS = "/run/edge-llm-sensors"
SHORT = {"monitoring_interval": "2s", "llm_tls": True}
DROP_IN = "/run/systemd/system/edge-llm-readings.service.d"
# A thermal zone, a way to slow down and a power sensor, which the readings see in /sys.
_SENSORS = f"""
mkdir -p {DROP_IN} {SENSORS}/hwmon/hwmon0
mkdir -p {SENSORS}/thermal/thermal_zone0 {SENSORS}/thermal/cooling_device0
cd {SENSORS}
echo CPU-therm > thermal/thermal_zone0/type; echo 51000 > thermal/thermal_zone0/temp
echo cpufreq-cpu0 > thermal/cooling_device0/type; echo 0 > thermal/cooling_device0/cur_state
echo ina3221 > hwmon/hwmon0/name; echo VDD_IN > hwmon/hwmon0/in1_label
echo 5000 > hwmon/hwmon0/in1_input; echo 1200 > hwmon/hwmon0/curr1_input
printf '[Service]\\nBindReadOnlyPaths={SENSORS}:/sys/class\\n' > {DROP_IN}/sensors.conf
systemctl daemon-reload
"""
_NO_SENSORS = f"rm -rf {SENSORS} {DROP_IN}; systemctl daemon-reload"


def shell(host: str, command: str) -> str:
    """What a command on a board writes; the test fails where the command does."""
    words = ["docker", "exec", f"test-{host}", "sh", "-ec", command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def query(expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers, asked with its certificate."""
    words = ["docker", "exec", PROMETHEUS, "promtool", "query", "instant", CLIENT, "-o", "json"]
    words += ["https://127.0.0.1:9090", expression]
    done = subprocess.run(
        ["docker", "exec", f"test-{SERVER}", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def firing(alert: str) -> set[str]:
    """The hosts of which an alert fires."""
    found = query(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')
    return {each["metric"]["host"] for each in found}


@contextmanager
def alerting(alert: str, host: str, seconds: float = 120) -> Iterator[None]:
    """The cause of an alert is created before, removed within; the alert fires, and clears."""
    assert host not in firing(alert)
    try:
        yield
    finally:
        until(lambda: host not in firing(alert), f"{alert} of {host} to clear", seconds=seconds)


def fires(alert: str, host: str, seconds: float = 120) -> None:
    until(lambda: host in firing(alert), f"{alert} of {host} to fire", seconds=seconds)


def deploy(**variables: object) -> None:
    done = play("site.yml", BOTH, *GROUP, **(SHORT | variables))
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def short_rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules, with waits of seconds in place of minutes."""
    text = re.sub(r"for: \d+m", "for: 2s", RULES.read_text())
    text = text.replace("[10m]", "[1m]").replace("> 300", "> 60")
    path = tmp_path_factory.mktemp("rules") / "alerts.yml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module", autouse=True)
def monitored(short_rules: Path) -> Iterator[None]:
    """The boards are monitored, by HTTPS, with certificates that end soon; and not at the end."""
    shell(SERVER, _SENSORS)
    try:
        deploy(llm_tls_days=13, monitoring_alerts=str(short_rules))
        yield
    finally:
        shell(SERVER, _NO_SENSORS)
        done = play("playbooks/monitoring.yml", BOTH, *GROUP, monitoring_remove=True, **SHORT)
        assert done.returncode == 0, done.stdout
        assert play("site.yml", BOTH).returncode == 0
        for host in (SERVER, OTHER):
            traces = shell(
                host, "ls -d /opt/edge-llm-monitoring /etc/systemd/system/edge-llm-node* || true"
            )
            assert traces == ""


def ask(board: Board, stream: bool = True) -> None:
    """A chat request, to its end."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": stream, "max_tokens": 8}
    headers = {"Authorization": f"Bearer {board.key}"}
    url = f"{board.url}/v1/chat/completions"
    with httpx.Client(verify=board.trust, headers=headers, timeout=120) as client:
        assert client.post(url, json=body).status_code == 200


def engine(host: str) -> str:
    """The container of a board's engine."""
    return next(name for name in board_named(host).containers() if "-engine-" in name)


def api(host: str) -> str:
    return next(name for name in board_named(host).containers() if "-api-" in name)


def test_the_cases_of_the_alerts_by_promtool(tmp_path: Path) -> None:
    write_cases(tmp_path, RULES.read_text())
    image = images.table(source.decide())["monitoring"].reference
    words = ["docker", "run", "--rm", f"--volume={tmp_path}:/cases:ro", image, "promtool"]
    done = subprocess.run(
        [*words, "test", "rules", "/cases/cases.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_job_of_every_host_is_up() -> None:
    def up() -> set[tuple[str, str]]:
        return {(each["metric"]["host"], each["metric"]["job"]) for each in query("up == 1")}

    # Ollama has no metrics of its own.
    wanted = {(SERVER, "engine"), *((h, j) for h in (SERVER, OTHER) for j in ("chat-api", "node"))}
    assert until(up, "all targets", lambda found: found >= wanted) == wanted


@pytest.mark.parametrize("expression", queries())
def test_every_query_of_the_dashboard_has_data(expression: str) -> None:
    for host in (SERVER, OTHER):
        ask(board_named(host))
    asked = expression.replace("$host", ".*").replace("$__rate_interval", "1m")
    until(lambda: query(asked), f"data of {asked}", seconds=60)


def test_nothing_of_it_listens_beyond_the_host() -> None:
    for host in (SERVER, OTHER):
        lines = shell(host, "ss -Hltnp").splitlines()
        ours = [
            each for each in lines if re.search(r'"(prometheus|alertmanager|node_exporter)', each)
        ]
        assert len(ours) == (2 if host == SERVER else 0)
        assert all(re.search(r"\s127\.0\.0\.1:909[03]\s", each) for each in ours)


def test_a_user_of_the_host_without_the_certificate_learns_nothing() -> None:
    for port in (9090, 9093):
        words = f"curl -sk https://127.0.0.1:{port}/api/v1/status/config || echo refused"
        assert shell(SERVER, words) == "refused\n"
    keys = shell(SERVER, "cd /opt/edge-llm-monitoring && cat prometheus/scrapes.yml")
    key = re.findall(r"credentials: (\w{64})", keys)[0]
    everything = shell(SERVER, "ps axww -o args; docker inspect $(docker ps --quiet)")
    assert key not in everything
    for path in ("prometheus/scrapes.yml", "tls/pair.pem", "alertmanager/alertmanager.yml"):
        mode = shell(SERVER, f"stat -c '%a %u %g' /opt/edge-llm-monitoring/{path}")
        assert mode == "440 0 10014\n"


def test_the_key_of_prometheus_opens_the_metrics_alone() -> None:
    keys = shell(SERVER, "cat /opt/edge-llm-monitoring/prometheus/scrapes.yml")
    key = re.findall(r"credentials: (\w{64})", keys)[0]
    board = board_named(SERVER)
    with httpx.Client(verify=board.trust, headers={"Authorization": f"Bearer {key}"}) as client:
        assert client.get(f"{board.url}/metrics/node").status_code == 200
        assert client.get(f"{board.url}/v1/models").status_code == 403


def test_a_second_run_changes_nothing(short_rules: Path) -> None:
    given = SHORT | {"llm_tls_days": 13, "monitoring_alerts": str(short_rules)}
    done = play("playbooks/monitoring.yml", BOTH, *GROUP, **given)
    assert done.returncode == 0, done.stdout
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}, done.stdout


def test_an_engine_that_is_stopped() -> None:
    """EngineDown, and RequestsHeldTooLong while a request waits."""
    name, board = engine(OTHER), board_named(OTHER)
    waiting = threading.Thread(target=ask, args=(board,))
    with alerting("EngineDown", OTHER), alerting("RequestsHeldTooLong", OTHER):
        shell(OTHER, f"docker stop {name}")
        try:
            fires("EngineDown", OTHER)
            waiting.start()
            fires("RequestsHeldTooLong", OTHER, 45)
            words = ["docker", "exec", ALERTMANAGER, "amtool", "alert", "query", CLIENT]
            words.append("--alertmanager.url=https://127.0.0.1:9093")
            # Prometheus sends alerts together, after a while.
            until(
                lambda: "EngineDown" in shell(SERVER, " ".join(words)), "the alert at Alertmanager"
            )
        finally:
            shell(OTHER, f"docker start {name}")
    waiting.join()


def test_a_chat_api_that_is_stopped() -> None:
    name = api(OTHER)
    with alerting("HostUnreachable", OTHER):
        shell(OTHER, f"docker stop {name}")
        try:
            fires("HostUnreachable", OTHER)
        finally:
            shell(OTHER, f"docker start {name}")


def test_answers_that_begin_late() -> None:
    """The engine stands still for longer than the ten seconds of the rule."""
    name, board = engine(SERVER), board_named(SERVER)
    ask(board)  # a series counts from its second sample on
    until(lambda: query(f'edge_llm_ttft_seconds_count{{host="{SERVER}"}} > 0'), "the first answer")
    with alerting("SlowFirstToken", SERVER, 180):
        threads = [threading.Thread(target=ask, args=(board,)) for _ in range(8)]
        shell(SERVER, f"docker pause {name}")
        try:
            for each in threads:
                each.start()
            subprocess.run(["sleep", "14"], check=True)
        finally:
            shell(SERVER, f"docker unpause {name}")
        for each in threads:
            each.join()
        fires("SlowFirstToken", SERVER)


def remade(alert: str, host: str, cause: str, remedy: str) -> None:
    """An alert whose cause a command on a board creates, and another one removes."""
    with alerting(alert, host):
        try:
            shell(host, cause)
            fires(alert, host)
        finally:
            shell(host, remedy)


def test_a_board_that_is_hot() -> None:
    zone = f"{SENSORS}/thermal/thermal_zone0/temp"
    remade("BoardHot", SERVER, f"echo 85000 > {zone}", f"echo 51000 > {zone}")


def test_a_board_that_is_slowed_down() -> None:
    state = f"{SENSORS}/thermal/cooling_device0/cur_state"
    remade("BoardThrottled", SERVER, f"echo 2 > {state}", f"echo 0 > {state}")


def test_a_raspberry_pi_with_too_little_voltage() -> None:
    program = "/usr/local/bin/vcgencmd"
    cause = f"printf '#!/bin/sh\\necho throttled=0x50001\\n' > {program}; chmod 755 {program}"
    remade("BoardThrottled", OTHER, cause, f"rm {program}")


def test_a_disk_that_is_almost_full() -> None:
    """The readings are those of a small file system, in place of this machine's disk."""
    small = "/run/edge-llm-small"
    cause = f"""
    mkdir -p {small} {DROP_IN}; mount -t tmpfs -o size=10m none {small}
    dd if=/dev/zero of={small}/full bs=1k count=9500 status=none
    printf '[Service]\\nEnvironment=EDGE_LLM_ROOT={small}\\n' > {DROP_IN}/small.conf
    systemctl daemon-reload
    """
    remedy = f"rm -r {DROP_IN}; systemctl daemon-reload; umount {small}; rmdir {small}"
    remade("DiskAlmostFull", OTHER, cause, remedy)


@pytest.mark.parametrize(
    ("file", "edit"),
    [(".env", "echo '# edited' >> "), ("docker-compose.yml", "echo '# edited' >> ")],
)
def test_a_file_that_was_edited(file: str, edit: str) -> None:
    path = f"$(readlink -f {FOLDER}/{file})"
    cause = f"cp -p {path} /run/edge-llm-kept; {edit}{path}"
    remade("HostDrifted", OTHER, cause, f"cp -p /run/edge-llm-kept {path}")


def test_readings_that_end() -> None:
    timer = "edge-llm-readings.timer"
    remade("ReadingsMissing", OTHER, f"systemctl stop {timer}", f"systemctl start {timer}")


def test_a_node_exporter_that_is_stopped() -> None:
    units = "edge-llm-node.socket edge-llm-node.service"
    remade(
        "ReadingsMissing", OTHER, f"systemctl stop {units}", "systemctl start edge-llm-node.socket"
    )


def test_a_certificate_that_ends(short_rules: Path) -> None:
    """Last: new certificates are those of a fleet that is in order."""
    for host in (SERVER, OTHER):
        fires("CertificateExpires", host)
        (ROOT / ".sandbox/test/keys/tls/hosts" / f"{host}.pem").unlink()
    assert client_file(OTHER).exists()
    deploy(monitoring_alerts=str(short_rules))
    until(lambda: firing("CertificateExpires") == set(), "CertificateExpires to clear")


def test_every_alert_has_a_test_here() -> None:
    text = Path(__file__).read_text()
    assert [each["alert"] for each in rules() if f'"{each["alert"]}"' not in text] == []
