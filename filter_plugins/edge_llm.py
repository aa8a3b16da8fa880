"""The names under which playbooks and roles reach `edge_fleet`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ansible.errors import AnsibleFilterError

from edge_fleet import (
    audit,
    catalogue,
    client_keys,
    control_files,
    drift,
    facts,
    host_archive,
    host_python,
    image_distribution,
    rollout,
    tables,
    tls,
    uninstall,
    verification,
    weight_distribution,
)
from edge_fleet.addresses import resolve
from edge_fleet.certificates import system_authorities
from edge_fleet.distribution_certificates import distribution_credentials
from edge_fleet.plan.build import deployment_plan
from edge_fleet.plan.docker import merge_daemon_json
from edge_fleet.plan.weights import prunable


def of_python(printed: object, host: str, core: str, install: bool = False) -> str:
    """`host_python.python_problem`, for what a raw command printed."""
    if not isinstance(printed, str):
        raise AnsibleFilterError("edge_llm_python_problem takes what the host printed")
    return host_python.python_problem(printed, host, core, install)


def new_credentials(distribution: dict[str, Any]) -> dict[str, Any]:
    """`distribution_certificates.distribution_credentials`, valid from now on."""
    return distribution_credentials(distribution, datetime.now(UTC))


def distribution_jobs(
    hosts: dict[str, Any], names: list[str], final: bool = False
) -> dict[str, Any]:
    """`weight_distribution.distribution_jobs`, with the names that this machine knows."""
    return weight_distribution.distribution_jobs(hosts, names, resolve, final)


def trust_files(authority: str, ca_file: str, bundle_file: str) -> list[dict[str, Any]]:
    """`tls.trust_files`, with the authorities of this machine."""
    return tls.trust_files(authority, ca_file, bundle_file, system_authorities())


class FilterModule:
    """Ansible finds the filters by this class."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "edge_llm_audit": audit.audit,
            "edge_llm_audit_problem": audit.audit_problem,
            "edge_llm_audit_table": tables.audit_table,
            "edge_llm_cached_images": image_distribution.cached_images,
            "edge_llm_catalogues": catalogue.read,
            "edge_llm_change": tables.change_line,
            "edge_llm_client_environment": control_files.client_environment,
            "edge_llm_distribution_credentials": new_credentials,
            "edge_llm_distribution_jobs": distribution_jobs,
            "edge_llm_docker_configuration": merge_daemon_json,
            "edge_llm_docker_in_place": drift.docker_in_place,
            "edge_llm_docker_options_left": uninstall.docker_options,
            "edge_llm_facts_problem": facts.facts_problem,
            "edge_llm_failure": rollout.failure,
            "edge_llm_fetch_jobs": weight_distribution.fetch_jobs,
            "edge_llm_first_failure": rollout.first_failure,
            "edge_llm_gpu_problem": verification.unverified_gpu,
            "edge_llm_history": tables.history_table,
            "edge_llm_host_program": host_archive.program_path,
            "edge_llm_installation_drift": drift.installation_drift,
            "edge_llm_key_files": client_keys.key_files,
            "edge_llm_key_notices": client_keys.key_notices,
            "edge_llm_oldest_backup": uninstall.oldest_backup,
            "edge_llm_own_holds": uninstall.own_holds,
            "edge_llm_own_images": uninstall.own_images,
            "edge_llm_plan": deployment_plan,
            "edge_llm_plan_table": tables.plan_table,
            "edge_llm_prunable": prunable,
            "edge_llm_python_problem": of_python,
            "edge_llm_registry_clients": image_distribution.registry_clients,
            "edge_llm_release_differences": drift.release_differences,
            "edge_llm_release_in_place": drift.release_in_place,
            "edge_llm_rollout": rollout.rollout,
            "edge_llm_stack_in_place": drift.stack_in_place,
            "edge_llm_table": tables.fleet_table,
            "edge_llm_tls": tls.tls_decision,
            "edge_llm_tls_pair": tls.split_pair,
            "edge_llm_trust_files": trust_files,
            "edge_llm_weights": weight_distribution.weights,
            "edge_llm_weights_in_place": drift.weights_in_place,
        }
