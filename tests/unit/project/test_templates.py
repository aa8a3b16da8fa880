"""The templates, rendered with every name defined or not at all, for each engine."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from edge_fleet.plan.build import deployment_plan
from edge_host.constants import API_UID, CLIENT_KEYS, ENGINE_UID, PLAIN_KEYS
from edge_host.host_info.deployment import needs_plain_keys
from edge_host.release.slots import PORT_TOKEN, TOKENS, fill_slots
from llm_provider.server.engine_file import NAMES
from tests.unit.edge_fleet.conftest import OWN_IMAGE, ROOT, catalogues, jetson

__all__ = ["catalogues", "jetson"]

SLOTS = {"engine": "a", "api": "a"}


def render(name: str, **variables: Any) -> str:
    """Render as Ansible does: a name that is not defined is an error."""
    environment = jinja2.Environment(  # noqa: S701 (nothing here is HTML)
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        loader=jinja2.FileSystemLoader(ROOT / "templates"),
    )
    environment.filters |= {"to_json": json.dumps, "combine": lambda left, right: left | right}
    return environment.get_template(name).render(variables)


@pytest.fixture(params=["llamacpp", "ollama", "vllm"])
def plan(
    request: pytest.FixtureRequest, jetson: dict[str, Any], catalogues: dict[str, Any]
) -> dict[str, Any]:
    catalogues = json.loads(json.dumps(catalogues))
    given = {"llm_provider": request.param, "llm_model": "smollm2-135m", "llm_image": OWN_IMAGE}
    planned = deployment_plan(jetson, "orin", given, catalogues)
    assert planned["problems"] == []
    return planned


def compose_text(plan: dict[str, Any], **changes: Any) -> str:
    variables: dict[str, Any] = {
        "stack_plan": plan,
        "stack_start_timeout": 600,
        "__stack_api_uid": API_UID,
        "__stack_engine_uid": ENGINE_UID,
        "__stack_start_interval": True,
    }
    return render("docker-compose.yml.j2", **(variables | changes))


def compose(plan: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The services in slot a."""
    loaded: dict[str, Any] = yaml.safe_load(fill_slots(compose_text(plan, **changes), SLOTS))
    return loaded


def env(plan: dict[str, Any]) -> dict[str, str]:
    text = render("env.j2", stack_plan=plan, stack_bundle={"image": "edge-llm/chat-api:1"})
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_env_says_what_runs(plan: dict[str, Any]) -> None:
    values = env(plan)
    assert values["LLM_PROVIDER"] == plan["provider"]
    assert values["API_IMAGE"] == "edge-llm/chat-api:1"
    assert values["CTX_SIZE"] == "4096"


def test_compose_takes_only_what_env_has(plan: dict[str, Any]) -> None:
    used = set(re.findall(r"\$\{(\w+)\}", json.dumps(compose(plan))))
    # The host adds the port of the engine's slot, and the image of the network's container, which
    # is that of the one that runs.
    assert used <= set(env(plan)) | {"ENGINE_PORT", "NETWORK_IMAGE"}
    assert {"ENGINE_IMAGE", "ENGINE_PORT", "NETWORK_IMAGE"} <= used


def test_a_key_is_read_where_the_engine_runs(plan: dict[str, Any]) -> None:
    """Not by compose, which would tell it to whoever asks docker about the container."""
    found = compose(plan)["services"]["engine-a"]
    assert "KEY" not in " ".join(found["environment"])
    words = [*found.get("entrypoint", []), *found["command"]]
    assert ("/run/secrets/engine_key" in " ".join(words)) == plan["engine"]["key"]
    # Compose takes a $ for its own, unless there are two.
    assert not re.search(r"(?<!\$)\$(?![${])", " ".join(words))


@pytest.mark.parametrize("service", ["network", "engine-a", "api-a"])
def test_services_are_contained(plan: dict[str, Any], service: str) -> None:
    found = compose(plan)["services"][service]
    user = ENGINE_UID if service == "engine-a" else API_UID
    assert found["user"] == f"{user}:{user}"
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["restart"] == "unless-stopped"
    mounts = found.get("volumes", [])
    writable = [each["source"] for each in mounts if not each.get("read_only")]
    # The chat API makes its socket there.
    assert writable == (["./run"] if service == "api-a" else [])


def test_no_port_is_published_and_no_network_is_used(plan: dict[str, Any]) -> None:
    """Whatever Docker's version and its firewall rules are, nothing reaches the engine from
    outside, and the engine reaches nothing there.
    """
    found = compose(plan)
    assert "networks" not in found
    modes = {name: each["network_mode"] for name, each in found["services"].items()}
    assert modes == {
        "network": "none",
        "engine-a": "service:network",
        "api-a": "service:network",
    }
    for service in found["services"].values():
        assert not {"ports", "expose", "networks", "extra_hosts", "dns"} & set(service)


def test_the_engine_listens_at_the_loopback_address_on_the_port_of_its_slot(
    plan: dict[str, Any],
) -> None:
    service = compose(plan)["services"]["engine-a"]
    words = [
        *service["command"],
        *(f"{key}={each}" for key, each in service["environment"].items()),
    ]
    listens = {
        "llamacpp": {"LLAMA_ARG_HOST=127.0.0.1", "LLAMA_ARG_PORT=${ENGINE_PORT}"},
        "ollama": {"OLLAMA_HOST=127.0.0.1:${ENGINE_PORT}"},
        "vllm": {"--host=127.0.0.1", "--port=${ENGINE_PORT}"},
    }[plan["provider"]]
    assert listens <= set(words)
    assert "0.0.0.0" not in json.dumps(service)
    # Its processes would look for the address of a network.
    alone = {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}.items()
    assert (alone <= service["environment"].items()) == (plan["provider"] == "vllm")
    # The command of Ollama's check takes its address from OLLAMA_HOST.
    check = " ".join(service["healthcheck"]["test"])
    assert check == "CMD ollama ps" or "http://127.0.0.1:${ENGINE_PORT}/health" in check


def test_the_chat_api_is_told_of_its_engine_by_the_file_alone(plan: dict[str, Any]) -> None:
    """Else it would be another container for every engine, and a swap would cut its clients off."""
    text = fill_slots(render("engine.env.j2", stack_plan=plan), SLOTS)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    told = dict(line.split("=", 1) for line in lines)
    assert told["LLM_BASE_URL"] == "http://127.0.0.1:11434"
    # Whoever asks an engine of the host needs its key, also where the engine itself asks for none.
    assert told["LLM_API_KEY_FILE"] == "/run/secrets/engine_key"
    assert set(told) <= NAMES
    environment = compose(plan)["services"]["api-a"]["environment"]
    assert not NAMES & set(environment)


def test_the_chat_api_is_told_of_a_task_that_is_not_chat(
    jetson: dict[str, Any], catalogues: dict[str, Any], plan: dict[str, Any]
) -> None:
    """Chat APIs of earlier versions refuse an engine file that has a name more."""
    assert "LLM_TASK" not in render("engine.env.j2", stack_plan=plan)
    given = {"llm_provider": "llamacpp", "llm_model": "smoke-rerank", "llm_image": OWN_IMAGE}
    planned = deployment_plan(jetson, "orin", given, catalogues)
    assert "\nLLM_TASK=rerank\n" in render("engine.env.j2", stack_plan=planned)


def test_a_token_stands_wherever_a_slot_belongs(plan: dict[str, Any]) -> None:
    """And in no file that holds what clients chose."""
    services = compose(plan)["services"]
    slots = {"engine": "b", "api": "a"}
    other = yaml.safe_load(fill_slots(compose_text(plan), slots))["services"]
    assert set(other) == {"network", "engine-b", "api-a"}
    for part, slot in slots.items():
        before, after = services[f"{part}-a"], other[f"{part}-{slot}"]
        assert after["container_name"] == f"edge-llm-{part}-{slot}"
        assert json.dumps(before).replace(f"{part}-a", f"{part}-{slot}") == json.dumps(after)
    engine = render("engine.env.j2", stack_plan=plan)
    assert "LLM_BASE_URL=http://127.0.0.1:11435\n" in fill_slots(engine, slots)
    tokens = [*TOKENS.values(), PORT_TOKEN]
    assert not [token for token in tokens if token in json.dumps(env(plan))]


def test_the_programs_in_the_containers_exist(plan: dict[str, Any]) -> None:
    """That of the network's container in images of any version: it keeps its image, while later
    releases bring later compose files."""
    services = compose(plan)["services"]
    assert services["network"]["entrypoint"] == ["sleep", "infinity"]
    command = services["api-a"]["healthcheck"]["test"]
    dockerfile = (ROOT / "src/Dockerfile").read_text()
    entrypoint = json.loads(dockerfile.rpartition("ENTRYPOINT ")[2])
    for words in (command[1:], entrypoint):
        assert words[:2] == ["python", "-m"]
        assert importlib.util.find_spec(words[2]) is not None


@pytest.fixture
def changed_chat_api(
    jetson: dict[str, Any], catalogues: dict[str, Any], plan: dict[str, Any]
) -> dict[str, Any]:
    """The same plan with other settings of the chat API."""
    given = {
        "llm_provider": plan["provider"], "llm_model": "smollm2-135m", "llm_image": OWN_IMAGE,
        "llm_cors_origins": ["https://chat.example"], "llm_strict": True,
        "llm_limits": {"max_connections": 1024},
    }  # fmt: skip
    planned = deployment_plan(jetson, "orin", given, json.loads(json.dumps(catalogues)))
    assert planned["problems"] == []
    return planned


def test_settings_of_the_chat_api_replace_the_chat_api_alone(
    plan: dict[str, Any], changed_chat_api: dict[str, Any]
) -> None:
    """A part whose service differs starts in its other slot; see edge_host.release.slots."""
    before, after = (compose(each)["services"] for each in (plan, changed_chat_api))
    assert [name for name in before if before[name] != after[name]] == ["api-a"]
    more = set(after["api-a"]["environment"].items()) - set(before["api-a"]["environment"].items())
    assert dict(more) == {
        "CHAT_API_CORS_ORIGINS": "https://chat.example",
        "CHAT_API_STRICT": "1",
        "CHAT_API_MAX_CONNECTIONS": "1024",
    }
    assert env(plan) == env(changed_chat_api)
    texts = [render("engine.env.j2", stack_plan=each) for each in (plan, changed_chat_api)]
    assert texts[0] == texts[1]


def test_memory_of_all_containers_is_limited(plan: dict[str, Any]) -> None:
    limits = {name: each["mem_limit"] for name, each in compose(plan)["services"].items()}
    assert limits == {
        "network": 16 * 1024**2,
        "engine-a": plan["engine"]["memory_limit"],
        "api-a": 224 * 1024**2,
    }


def test_processes_of_all_containers_are_limited_and_leave_no_core(plan: dict[str, Any]) -> None:
    services = compose(plan)["services"]
    limits = {name: each["pids_limit"] for name, each in services.items()}
    assert limits == {"network": 32, "engine-a": 2048, "api-a": 128}
    assert {each["ulimits"]["core"] for each in services.values()} == {0}


def test_the_chat_api_reads_hashed_keys(plan: dict[str, Any], tmp_path: Path) -> None:
    """A host sees by this line that a release does not need keys in plain text."""
    found = compose(plan)["services"]["api-a"]["environment"]["CHAT_API_KEYS_FILE"]
    assert found == f"/run/secrets/{CLIENT_KEYS}"
    folder = tmp_path / "releases/0001"
    folder.mkdir(parents=True)
    file = folder / "docker-compose.yml"
    text = fill_slots(compose_text(plan), SLOTS)
    file.write_text(text)
    assert not needs_plain_keys(tmp_path)
    file.write_text(text.replace(CLIENT_KEYS, PLAIN_KEYS))
    assert needs_plain_keys(tmp_path)


def test_the_chat_api_serves_https_where_the_plan_does(plan: dict[str, Any]) -> None:
    """By another environment, so that a change of llm_tls replaces the chat API."""
    names = {"CHAT_API_TLS_CERTIFICATE", "CHAT_API_TLS_KEY"}
    service = compose(plan)["services"]["api-a"]
    assert not names & set(service["environment"])
    with_tls = compose(plan | {"api": plan["api"] | {"tls": True}})["services"]["api-a"]
    added = dict(with_tls["environment"].items() - service["environment"].items())
    assert added == {
        "CHAT_API_TLS_CERTIFICATE": "/run/secrets/tls/certificate.pem",
        "CHAT_API_TLS_KEY": "/run/secrets/tls/key.pem",
    }
    # As a folder: a file that is mounted by itself stays the one that it was.
    mounts = {each["target"]: each["source"] for each in with_tls["volumes"]}
    assert mounts["/run/secrets"] == "./secrets"
    assert with_tls["healthcheck"] == service["healthcheck"]


def test_start_interval_is_left_out_for_an_older_docker(plan: dict[str, Any]) -> None:
    for name in ("engine-a", "api-a"):
        services = compose(plan)["services"]
        assert services[name]["healthcheck"]["start_interval"] == "1s"
        services = compose(plan, __stack_start_interval=False)["services"]
        assert "start_interval" not in services[name]["healthcheck"]


def test_a_missing_name_is_an_error(plan: dict[str, Any]) -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("docker-compose.yml.j2", stack_plan=plan)


def test_no_template_goes_untested() -> None:
    assert {path.name for path in Path(ROOT / "templates").iterdir()} == {
        "docker-compose.yml.j2",
        "engine.env.j2",
        "env.j2",
    }
