"""The project's certificate authority: tasks of the role stack that issue certificates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge_fleet.certificates import Certificate, Pair, parse_pair
from edge_fleet.client_keys import key_files
from edge_host.folders import secret_access
from tests.certificates import authority, issue

ROOT = Path(__file__).parents[3]
HOSTS = {"pi-01": "192.0.2.11", "jetson-01": "2001:db8::12"}
# The parts of a run that the tasks depend on, and what clients get.
TASKS = [
    *[
        {"ansible.builtin.include_vars": {"file": f"{ROOT}/roles/{name}/main.yml"}}
        for name in ("preflight/defaults", "preflight/vars", "stack/defaults", "stack/vars")
    ],
    {
        "ansible.builtin.set_fact": {
            "preflight_tls": "{{ preflight_tls }}",
            "stack_plan": {"host": "{{ inventory_hostname }}", "api": {"tls": True}},
        }
    },
    {"ansible.builtin.include_tasks": "{{ role }}/certificate.yml"},
    {"ansible.builtin.include_vars": {"file": f"{ROOT}/roles/verify/vars/main.yml"}},
    {
        "ansible.builtin.debug": {"msg": "{{ __verify_command | join(' ') }}"},
        "vars": {
            "verify_plan": {
                "provider": "ollama",
                "model": {"name": "smoke", "task": "chat"},
                "environment": {"CTX_SIZE": 4096, "PARALLEL": 4},
            },
            "verify_url": "{{ preflight_url }}",
            "verify_ca_file": "{{ preflight_ca_file }}",
            "verify_timeout": 300,
            "verify_prompt": "Hello",
        },
    },
    {
        "control_files": {"files": ["{{ __preflight_client }}"]},
        "no_log": True,
        "when": "not ansible_check_mode",
    },
]


@dataclass
class Control:
    """A control machine: its folder of secrets, and the folder of a host that runs there."""

    folder: Path
    secrets: Path
    variables: dict[str, Any]

    def run(self, *options: str, hosts: dict[str, str] = HOSTS, **variables: Any) -> str:
        """Run the tasks for hosts; returns the output."""
        found = {name: {"ansible_host": address} for name, address in hosts.items()}
        return self.play(found, TASKS, *options, **variables)

    def play(self, hosts: dict[str, Any], tasks: list[Any], *options: str, **variables: Any) -> str:
        inventory, playbook = self.folder / "hosts.json", self.folder / "play.yml"
        everywhere = self.variables | variables
        inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": everywhere}}))
        playbook.write_text(yaml.safe_dump([{"hosts": "all", "tasks": tasks}]))
        done = subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                *("-i", str(inventory)),
                *(*options, str(playbook)),
            ],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pair(self, host: str) -> Pair:
        text = self.file(f"tls/hosts/{host}.pem").read_text()
        return parse_pair(text, text)

    def authority(self) -> Certificate:
        text = self.file("tls/authority.pem").read_text()
        return parse_pair(text, text).certificate

    def file(self, name: str) -> Path:
        return self.secrets / name

    def files(self) -> set[str]:
        found = self.secrets.rglob("*") if self.secrets.exists() else ()
        return {str(path.relative_to(self.secrets)) for path in found if path.is_file()}


@pytest.fixture
def control(tmp_path: Path) -> Control:
    root = tmp_path / "host"
    variables = {
        "role": str(ROOT / "roles/stack/tasks"),
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        # As in a group of boards: it must not become root on the control machine.
        "ansible_become": False,
        "board_secrets_dir": str(tmp_path / "secrets"),
        "llm_tls": True,
        "board_root": f"{root}/{{{{ inventory_hostname }}}}",
    }
    for host in HOSTS:
        (root / host / "secrets").mkdir(parents=True)
    return Control(tmp_path, tmp_path / "secrets", variables)


def served(control: Control, host: str) -> tuple[str, str]:
    """The texts of a host's certificate and key."""
    folder = control.folder / "host" / host / "secrets/tls"
    return (folder / "certificate.pem").read_text(), (folder / "key.pem").read_text()


def lines_of_keys(control: Control) -> list[str]:
    """The lines of all private keys that hold a part of one: the last has the public key alone."""
    keys = [control.pair(host).key for host in HOSTS]
    text = control.file("tls/authority.pem").read_text()
    keys.append(parse_pair(text, text).key)
    return [line for key in keys for line in key.splitlines()[1:3]]


def test_certificates_are_issued_renewed_and_never_shown(control: Control) -> None:
    """The way of two hosts, in an order that saves runs of Ansible."""
    said = control.run("--check", "--diff")
    assert control.files() == set(), "a check run on a clean control machine writes nothing"
    for host, address in HOSTS.items():
        wanted = f"Would issue a certificate for {address}, {host}: there is none that can be used."
        assert wanted in " ".join(said.split())

    said = control.run("--diff", "-vvv")
    assert control.files() == {
        *("tls/authority.pem", "tls/ca.pem", "tls/ca-bundle.pem"),
        *(f"tls/hosts/{host}.pem" for host in HOSTS),
        *(f"{host}.{kind}" for host in HOSTS for kind in ("key", "env")),
    }
    for name in ("authority.pem", *(f"hosts/{host}.pem" for host in HOSTS)):
        assert control.file(f"tls/{name}").stat().st_mode & 0o777 == 0o600
    for name in ("tls", "tls/hosts"):
        assert control.file(name).stat().st_mode & 0o777 == 0o700
    check_authority(control.authority())
    for host in HOSTS:
        check_certificate(control, host)
        assert served(control, host) == (control.pair(host).chain, control.pair(host).key)
    assert not [line for line in lines_of_keys(control) if line in said]
    assert "--url=https://192.0.2.11:8000" in said.split()
    assert f"--ca-file={control.file('tls/ca.pem')}" in said, "the verification trusts it alone"
    check_clients(control)

    # In place: nothing changes.
    before = {name: control.file(name).read_bytes() for name in control.files()}
    said = control.run()
    assert said.count("changed=0") == len(HOSTS)
    assert {name: control.file(name).read_bytes() for name in control.files()} == before

    # One of them is near its end.
    text = control.file("tls/authority.pem").read_text()
    begin = datetime.now(UTC) - timedelta(days=700)
    aged = issue(text, [f"IP:{HOSTS['pi-01']}", "DNS:pi-01"], begin, 825)
    control.file("tls/hosts/pi-01.pem").write_text(aged)
    said = control.run("--check")
    assert f"it expires on {begin + timedelta(days=825):%Y-%m-%d}." in " ".join(said.split())
    assert control.file("tls/hosts/pi-01.pem").read_text() == aged
    control.run()
    check_certificate(control, "pi-01")
    assert control.pair("pi-01").key == parse_pair(aged, aged).key, "the key stays"
    assert served(control, "pi-01") == (control.pair("pi-01").chain, control.pair("pi-01").key)
    assert control.file("tls/hosts/jetson-01.pem").read_bytes() == before["tls/hosts/jetson-01.pem"]
    assert control.file("tls/authority.pem").read_text() == text


def check_authority(made: Certificate) -> None:
    constraints = made.parsed.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(True, 0))
    usage = made.parsed.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.digital_signature) == (True, False)
    assert made.not_after - made.not_before == timedelta(days=3650)


def check_certificate(control: Control, host: str) -> None:
    made = control.pair(host).certificate
    assert made.issued_by(control.authority())
    assert set(made.names) == {f"IP:{HOSTS[host]}", f"DNS:{host}"}
    assert made.not_after - made.not_before == timedelta(days=825)
    assert made.not_before < datetime.now(UTC) - timedelta(hours=23)
    extensions = made.parsed.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.ca is False
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    # Python 3.13 accepts none without.
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)


def check_clients(control: Control) -> None:
    """What `make env` prints."""
    ca, bundle = control.file("tls/ca.pem"), control.file("tls/ca-bundle.pem")
    assert "PRIVATE KEY" not in ca.read_text() + bundle.read_text()
    (found,) = x509.load_pem_x509_certificates(ca.read_bytes())
    assert found == control.authority().parsed
    assert bundle.read_text().startswith(ca.read_text())
    for host, address in (("pi-01", "192.0.2.11"), ("jetson-01", "[2001:db8::12]")):
        key = control.file(f"{host}.key").read_text().strip()
        assert control.file(f"{host}.env").read_text().splitlines() == [
            f"OPENAI_BASE_URL=https://{address}:8000/v1",
            f"OPENAI_API_KEY={key}",
            f"SSL_CERT_FILE={bundle}",
            f"NODE_EXTRA_CA_CERTS={ca}",
            "export OPENAI_BASE_URL OPENAI_API_KEY SSL_CERT_FILE NODE_EXTRA_CA_CERTS",
        ]


def test_the_first_of_two_runs_makes_the_authority(control: Control) -> None:
    """Another run makes its authority between this one's look for a file and its own writing."""
    other = authority()
    during = {
        "ansible.builtin.copy": {"content": other, "dest": str(control.file("tls/authority.pem"))},
        "run_once": True,
    }
    for path in (ROOT / "roles/stack/tasks").glob("*certificate*.yml"):
        tasks = yaml.safe_load(path.read_text())
        if path.stem == "certificate_authority":
            tasks.insert(-1, during)
        (control.folder / path.name).write_text(yaml.safe_dump(tasks))
    control.file("tls").mkdir(parents=True, mode=0o700)
    control.run(role=str(control.folder))
    assert control.file("tls/authority.pem").read_text() == other
    for host in HOSTS:
        assert control.pair(host).certificate.issued_by(control.authority())


def test_a_certificate_of_the_operator_is_installed(control: Control, tmp_path: Path) -> None:
    pair = issue(authority(), ["IP:192.0.2.11"])
    (tmp_path / "own.pem").write_text(pair)
    relative = os.path.relpath(tmp_path / "own.pem", ROOT)
    own = {"llm_tls_certificate": relative, "llm_tls_private_key": str(tmp_path / "own.pem")}
    only = {"pi-01": HOSTS["pi-01"]}
    said = control.run("--diff", hosts=only, llm_tls_ca=str(tmp_path / "own.pem"), **own)
    assert f"--ca-file={tmp_path}/own.pem" in said
    found = parse_pair(pair, pair)
    assert served(control, "pi-01") == (found.chain, found.key)
    assert not control.file("tls").exists(), "the project makes no authority"
    lines = control.file("pi-01.env").read_text().splitlines()
    assert lines[2:4] == [
        f"SSL_CERT_FILE={tmp_path}/own.pem",
        f"NODE_EXTRA_CA_CERTS={tmp_path}/own.pem",
    ]


def test_clients_keep_the_scheme_of_the_release_that_serves(control: Control) -> None:
    """Until the release with the other one is committed."""

    def state(tls: bool | None) -> dict[str, Any]:
        """A host's facts; None for a host without a release, and one of an earlier version."""
        plan = {"api": {} if tls is None else {"tls": tls}}
        return {"deployment": {"release": {"plan": plan}}}

    hosts = {
        "first": (True, {"deployment": {"release": None}}),
        "on": (True, state(tls=True)),
        "to-be-on": (True, state(tls=False)),
        "earlier": (True, state(tls=None)),
        "off": (False, state(tls=False)),
        "to-be-off": (False, state(tls=True)),
    }
    control.file("tls").mkdir(parents=True)
    control.file("tls/ca.pem").write_text("a certificate")
    found = {
        name: {"ansible_host": "192.0.2.11", "llm_tls": tls, "preflight_state": known}
        for name, (tls, known) in hosts.items()
    }
    tasks = [
        *TASKS[:2],
        {
            "ansible.builtin.copy": {
                "content": "{{ __preflight_client.content }}",
                "dest": "{{ to }}",
            }
        },
        {
            "ansible.builtin.copy": {
                "content": "{{ __preflight_client_served.content }}",
                "dest": "{{ to }}-served",
            }
        },
    ]
    to = str(control.folder / "{{ inventory_hostname }}")
    control.play(found, tasks, to=to, llm_api_key="a-key-of-sixteen-or-more")
    bundle, ca = (control.file(f"tls/{name}.pem") for name in ("ca-bundle", "ca"))
    trust = f"SSL_CERT_FILE={bundle}\nNODE_EXTRA_CA_CERTS={ca}\n"
    texts = {
        tls: f"OPENAI_BASE_URL=http{'s' if tls else ''}://192.0.2.11:8000/v1\n"
        f"OPENAI_API_KEY=a-key-of-sixteen-or-more\n{trust if tls else ''}"
        f"export OPENAI_BASE_URL OPENAI_API_KEY"
        f"{' SSL_CERT_FILE NODE_EXTRA_CA_CERTS' if tls else ''}\n"
        for tls in (True, False)
    }
    serves = {"first": True, "on": True, "to-be-on": False, "earlier": False, "off": False}
    for name, (tls, _) in hosts.items():
        assert (control.folder / name).read_text() == texts[tls], name
        served_text = (control.folder / f"{name}-served").read_text()
        assert served_text == texts[serves.get(name, True)], name


@pytest.mark.parametrize("known", [True, False])
def test_a_rollback_keeps_the_address_of_the_release(control: Control, known: bool) -> None:
    """The inventory has HTTPS, and the release that serves again has HTTP."""
    host, key = "pi-01", "a-key-of-sixteen-or-more"
    root = control.folder / "host" / host
    release = root / "releases/0001"
    release.mkdir(parents=True)
    plan = {"provider": "ollama", "model": {"name": "smoke"}, "api": {"base_image": "python"}}
    record = {"number": 1, "slots": {"engine": "a", "api": "a"}, "rendered": {}, "written": {}}
    (release / "release.json").write_text(json.dumps(record | {"plan": plan}))
    (root / "current").symlink_to("releases/0001")
    keys = root / "secrets/api_keys.jsonl"
    keys.write_text(key_files([], key, host, "2026-11-30T10:00:00Z")["api_keys.jsonl"])
    keys.chmod(0o640)
    os.chown(keys, *secret_access(keys.name)[:2])
    if known:
        control.secrets.mkdir()
        control.file("pi-01.env").write_text("OPENAI_BASE_URL=https://192.0.2.11:8000/v1\n")
    tasks = [{"ansible.builtin.import_role": {"name": "preflight", "tasks_from": "client"}}]
    facts = {"ansible_host": HOSTS[host], "preflight_root": str(root)}
    control.play({host: facts}, tasks, llm_api_key=key)
    assert control.files() == ({"pi-01.env"} if known else set()), "no key is generated"
    if known:
        assert control.file("pi-01.env").read_text() == (
            f"OPENAI_BASE_URL=http://192.0.2.11:8000/v1\nOPENAI_API_KEY={key}\n"
            "export OPENAI_BASE_URL OPENAI_API_KEY\n"
        )
