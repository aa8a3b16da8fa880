"""All hosts of a play, from one process: read, planned, compared with their plans, verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible.constants as constants
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from edge_ansible.arguments import invalid_options, load_options
from edge_ansible.connections import Connections
from edge_ansible.definitions import Definitions, load_roles
from edge_ansible.verification import Served, verify_hosts
from edge_fleet import catalogue
from edge_fleet.chat_api_bundle import bundle
from edge_fleet.control_files import write_files
from edge_fleet.fleet_comparison import (
    DIFFERS,
    IN_PLACE,
    NEEDED,
    UNREACHABLE,
    UNREAD,
    differences,
    needed_hosts,
)
from edge_fleet.fleet_reader import Host, Reading, read_hosts
from edge_fleet.host_archive import build
from edge_fleet.progress import MOST_TEXT, clean_text
from edge_fleet.tables import fleet_row, host_notes
from edge_fleet.verification import failed_checks, unverified_gpu
from edge_host.files import write_atomically

_CACHES = ("llm_images_cache", "llm_models_cache")
_ACCESS = ("llm_models_token", "llm_models_proxy", "llm_models_ca")
_PASSED_ON = (
    "preflight_key_files",
    "preflight_tls",
    "preflight_tls_files",
    "preflight_ca_file",
    "preflight_time",
    "preflight_url",
    "preflight_variables",
)


@dataclass
class _Host:
    """What is known of a host so far."""

    name: str
    reading: Reading = field(default_factory=Reading)
    _definitions: Definitions | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    state: str = UNREAD
    reasons: list[str] = field(default_factory=list)

    @property
    def definitions(self) -> Definitions:
        """The variables of a host for which a connection was made."""
        if self._definitions is None:
            raise LookupError("the variables of the host are missing")
        return self._definitions

    @definitions.setter
    def definitions(self, found: Definitions) -> None:
        self._definitions = found

    def differs(self, state: str, *reasons: str) -> None:
        self.state, self.reasons = state, [clean_text(each, MOST_TEXT) for each in reasons]

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "state": self.state,
            "reasons": self.reasons,
            "calls": self.reading.calls,
        }
        if self.state == IN_PLACE:
            cells, _ = fleet_row({"inventory_hostname": self.name} | self.facts)
            found |= {"row": cells, "notices": "\n".join(host_notes(self.facts))}
        return found


def compare_fleet(
    action: ActionBase, task_vars: Mapping[str, Any], seconds: float
) -> dict[str, dict[str, Any]]:
    """The state of each host of the play (`edge_fleet.fleet_comparison`), by its name.

    seconds: how long a chat API may take to be ready, and for each answer. A host that cannot be
    read or compared here goes through the plays, where it fails with its reason: this raises
    nothing for a single host.
    """
    run = _Run(action, task_vars)
    hosts = {name: _Host(name) for name in task_vars["ansible_play_hosts"]}
    run.read(hosts)
    for host in _those(hosts, IN_PLACE):
        run.guard(host, run.compare)
    run.verify(_those(hosts, IN_PLACE), seconds)
    states = {host.name: host.state for host in hosts.values()}
    facts = {host.name: host.facts for host in hosts.values()}
    settings = {host.name: host.settings for host in hosts.values()}
    for name in needed_hosts(facts, states, settings):
        hosts[name].differs(NEEDED, "other hosts get weights or images from it")
    return {name: host.result() for name, host in hosts.items()}


def _those(hosts: Mapping[str, _Host], state: str) -> list[_Host]:
    return [host for host in hosts.values() if host.state == state]


class _Run:
    def __init__(self, action: ActionBase, task_vars: Mapping[str, Any]) -> None:
        self._connections = Connections(action)
        self._display = action._display
        self._loader = action._loader
        self._task = action._task
        self._manager = self._task.get_variable_manager()
        self._names = list(task_vars["ansible_play_hosts"])
        self._all = list(task_vars["ansible_play_hosts_all"])
        self._inventory = task_vars["hostvars"]._inventory
        self._forks = int(task_vars.get("ansible_forks") or constants.DEFAULT_FORKS)
        self._roles = load_roles(self._loader, constants.DEFAULT_ROLES_PATH)
        self._options = load_options(self._loader, constants.DEFAULT_ROLES_PATH)
        self._bundles: dict[tuple[str, ...], dict[str, Any]] = {}
        self._catalogues: dict[str, dict[str, Any]] = {}

    def _show(self, line: str) -> None:
        self._display.display(line)

    def guard(self, host: _Host, step: Callable[[_Host], None]) -> None:
        """Take a step with a host; where that fails, the host goes through the plays."""
        try:
            step(host)
        except (
            AnsibleError,
            ArithmeticError,
            LookupError,
            OSError,
            TypeError,
            ValueError,
        ) as error:
            host.differs(UNREAD, f"{type(error).__name__}: {error}")

    def read(self, hosts: Mapping[str, _Host]) -> None:
        reachable: dict[str, Host] = {}

        def prepare(host: _Host) -> None:
            reachable[host.name] = self._connected(host)

        for host in hosts.values():
            self.guard(host, prepare)
        readings = read_hosts(reachable, build(), self._forks, self._show)
        for name, reading in readings.items():
            hosts[name].reading = reading
            if reading.unreachable:
                hosts[name].differs(UNREACHABLE, reading.unreachable)
            elif reading.facts is None:
                hosts[name].differs(UNREAD, reading.problem)
            else:
                hosts[name].state = IN_PLACE

    def _connected(self, host: _Host) -> Host:
        of_inventory = self._inventory.get_host(host.name)
        variables = self._manager.get_vars(
            play=self._task.play,
            host=of_inventory,
            task=self._task,
            _hosts=self._names,
            _hosts_all=self._all,
        )
        host.definitions = found = Definitions(self._loader, self._roles, variables)
        found.keep("preflight_project", "preflight_root", "preflight_api_key", *_PASSED_ON)
        host.settings = {
            name: found.evaluate(name) for name in _CACHES if variables.get(name) is not None
        }
        host.facts = {
            name: found.evaluate(name) for name in _ACCESS if variables.get(name) is not None
        }
        python = variables.get("ansible_python_interpreter")
        python = "" if python is None else str(found.evaluate("ansible_python_interpreter"))
        return Host(
            run=self._connections.connect(of_inventory, variables),
            root=str(found.evaluate("preflight_root")),
            secrets=found.evaluate("preflight_secrets"),
            python=python if python.startswith("/") else "",
        )

    def compare(self, host: _Host) -> None:
        """Plan a host that was read, and note in what it differs from its plan."""
        found, state = host.definitions, host.reading.facts
        given = [name for name in self._options if name in found.given]
        values = {name: found.evaluate(name) for name in given}
        if invalid := invalid_options(self._options, values):
            host.differs(DIFFERS, f"the roles refuse the values of: {', '.join(invalid)}")
            return
        folder = str(found.evaluate("preflight_catalogue_dir"))
        if folder not in self._catalogues:
            self._catalogues[folder] = catalogue.read(folder)
        found.set(preflight_state=state, __preflight_catalogues=self._catalogues[folder])
        plan = found.keep("__preflight_plan")["__preflight_plan"]
        host.facts |= {"preflight_plan": plan, "preflight_state": state}
        found.set(preflight_plan=plan)
        files = _complete(found.evaluate("__preflight_files"))
        changes = write_files(files, check=True, write=write_atomically)["changes"]
        if plan["problems"]:
            host.differs(DIFFERS, "the plan is refused", *plan["problems"])
            return
        stack_bundle = self._bundle(found, plan)
        kept = found.keep("__preflight_client", "__preflight_client_served")
        found.set(
            stack_bundle=stack_bundle,
            preflight_client=kept["__preflight_client"],
            preflight_client_served=kept["__preflight_client_served"],
            preflight_key=found.evaluate("preflight_api_key"),
        )
        host.facts |= {
            "stack_bundle": stack_bundle,
            "preflight_tls": found.evaluate("preflight_tls"),
            "preflight_key_notices": found.evaluate("preflight_key_notices"),
        }
        found.keep("stack_plan", "stack_project", "stack_start_timeout", "__stack_start_interval")
        release = found.evaluate("__stack_files", only=("stack_", "__stack_"))
        if reasons := differences(host.facts, release, changes):
            host.differs(DIFFERS, *reasons)

    def _bundle(self, found: Definitions, plan: Mapping[str, Any]) -> dict[str, Any]:
        """The image of the chat API; nothing is built for a host that has it."""
        api = plan["api"]
        place = (str(found.evaluate("stack_project")), str(found.evaluate("stack_cache")))
        key = (*place, api["base_image"], api["architecture"])
        if key not in self._bundles:
            project, cache, base_image, architecture = key
            self._bundles[key] = bundle(
                Path(project), Path(cache), base_image, architecture, check=True
            )
        return self._bundles[key]

    def verify(self, hosts: Iterable[_Host], seconds: float) -> None:
        served: dict[str, Served] = {}
        by_name = {host.name: host for host in hosts}

        def prepare(host: _Host) -> None:
            words = host.definitions.evaluate("__verify_command")
            words += host.definitions.evaluate("__verify_options")
            # After `python -m llm_provider`.
            served[host.name] = Served(
                [str(each) for each in words[3:]], str(host.definitions.evaluate("verify_api_key"))
            )

        for host in by_name.values():
            self.guard(host, prepare)
        for name, report in verify_hosts(served, self._forks, seconds, self._show).items():
            host = by_name[name]
            log = host.facts["preflight_state"]["deployment"]["engine_log"]
            host.facts |= {"verify_report": report, "verify_engine_log": log}
            if not report["ok"]:
                host.differs(DIFFERS, f"the verification failed: {failed_checks(report)}")
            elif log["start_seconds"] is not None and (
                problem := unverified_gpu(host.facts["preflight_plan"], log, report)
            ):
                host.differs(DIFFERS, f"the verification failed: {problem}")


def _complete(files: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Files as the action control_files has them, with its defaults."""
    return [{"secret": False, "gathered": False, "once": False} | dict(each) for each in files]
