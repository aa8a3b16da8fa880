#!/usr/bin/python
"""The host_audit_info module: see `edge_host.audit.facts`."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.audit.facts import REGISTRY_ROOT, AuditError, read_audit
from ansible.module_utils.edge_host.constants import ROOT

DOCUMENTATION = r"""
module: host_audit_info
short_description: Read what an audit of a host's security judges, in one call
description:
  - Reads owners and modes of files, Docker's options, the project's containers, networks and units,
    listening sockets, and names of keys. Changes nothing, and returns no secret.
  - The filter C(edge_llm_audit) judges the result.
  - Run this module as root. As another user it fails, since what it cannot see would pass.
options:
  root:
    description: The folder of the deployment. It need not exist.
    type: path
    default: /opt/edge-llm
  registry_root:
    description: The folder of a fleet's registry. Few hosts have it.
    type: path
    default: /opt/edge-llm-registry
author: edge-llm
"""

EXAMPLES = r"""
- name: Read what the audit judges
  host_audit_info:
    root: /opt/edge-llm
  register: host
"""

# In upper case stands a name that differs from host to host.
RETURN = r"""
audit:
  description: What an audit judges.
  returned: success
  type: dict
  contains:
    deployed: {type: bool, description: Whether the host has a current release.}
    tls: {type: bool, description: Whether the current release serves HTTPS.}
    files:
      description: The files of the folders O(root) and O(registry_root), these first.
      type: list
      elements: dict
      contains:
        path: {type: str, description: The absolute path.}
        kind: {type: str, description: "file, folder, link, socket or other."}
        mode: {type: str, description: "The permissions, such as 0644."}
        uid: {type: int, description: The owner.}
        gid: {type: int, description: The group.}
        target: {type: str, description: "What a link names; null for others."}
    all_files: {type: bool, description: Whether these are all files of the folders.}
    roots:
      description: The folder O(root), and O(registry_root) where it exists.
      type: list
      elements: str
    daemon_json:
      description: >-
        The options of /etc/docker/daemon.json that an audit judges; null where there is no such
        file. Others may hold a secret.
      type: dict
    daemon_json_error: {type: str, description: "Why that file cannot be read, or null."}
    daemon_json_file:
      description: That file, or null.
      type: dict
      contains: &file
        path: {type: str, description: The absolute path.}
        kind: {type: str, description: "file, folder, link, socket or other."}
        mode: {type: str, description: "The permissions, such as 0644."}
        uid: {type: int, description: The owner.}
        gid: {type: int, description: The group.}
        target: {type: str, description: "What a link names; null for others."}
    docker_socket:
      description: Docker's socket, or null.
      type: dict
      contains: *file
    docker_group:
      description: The members of the group docker, but root.
      type: list
      elements: str
    docker_group_id: {type: int, description: "The id of that group, or null."}
    docker:
      description: The Docker engine.
      type: dict
      contains:
        running: {type: bool, description: Whether the engine answers.}
        version: {type: str, description: "The version of the engine, or null."}
        error: {type: str, description: "Why the engine does not answer, or null."}
        live_restore: {type: bool, description: Whether containers outlive a restart of the engine.}
    containers:
      description: The project's containers, those that do not run, too.
      type: list
      elements: dict
      contains:
        name: {type: str, description: The name.}
        id: {type: str, description: The id.}
        service: {type: str, description: "The service of the compose file, such as engine-a."}
        image: {type: str, description: "The image, as configured."}
        running: {type: bool, description: Whether the container runs.}
        user: {type: str, description: "The user, as configured; empty for root."}
        privileged: {type: bool, description: Whether the container is privileged.}
        read_only: {type: bool, description: Whether the root file system is read-only.}
        cap_drop: {type: list, elements: str, description: Capabilities that are taken.}
        cap_add: {type: list, elements: str, description: Capabilities that are given.}
        security_opt: {type: list, elements: str, description: Options such as no-new-privileges.}
        pids_limit: {type: int, description: The limit of processes; 0 for none.}
        memory: {type: int, description: The memory limit in bytes; 0 for none.}
        core_limit: {type: int, description: "The limit of core dumps in bytes; null for none."}
        namespaces:
          description: Namespaces of the host that the container shares, besides the network.
          type: list
          elements: str
        devices: {type: list, elements: str, description: Devices of the host.}
        log_driver: {type: str, description: The driver of the log.}
        log_max_size: {type: str, description: "The size at which the log is rotated, or null."}
        healthcheck: {type: bool, description: Whether there is a health check.}
        mounts:
          description: What is mounted.
          type: list
          elements: dict
          contains:
            source: {type: str, description: The path on the host.}
            target: {type: str, description: The path in the container.}
            writable: {type: bool, description: Whether the container may write to it.}
            propagation: {type: str, description: "The propagation, such as rprivate."}
        published:
          description: Ports of the host that Docker passes to the container.
          type: list
          elements: dict
          contains:
            address: {type: str, description: The host's address.}
            port: {type: int, description: The host's port.}
        network_mode: {type: str, description: "bridge, none, host, container:ID or a name."}
        networks: {type: list, elements: str, description: The networks.}
    networks:
      description: The networks of these containers.
      type: dict
      contains:
        NAME:
          description: The network NAME.
          type: dict
          contains:
            driver: {type: str, description: The driver.}
            internal: {type: bool, description: Whether the network leads nowhere.}
    units:
      description: The project's services of systemd.
      type: list
      elements: dict
      contains:
        unit: {type: str, description: The name.}
        exposure:
          description: >-
            What `systemd-analyze security` says, from 0 (confined) to 10; or null.
          type: float
        error: {type: str, description: "Why there is no exposure, or null."}
    listeners:
      description: The listening TCP sockets of the host.
      type: list
      elements: dict
      contains:
        port: {type: int, description: The port.}
        address: {type: str, description: The address.}
        process: {type: str, description: "The name of the process, or null."}
    core_pattern: {type: str, description: "Where the kernel puts core dumps, or null."}
    keys:
      description: The keys of clients that the chat API knows.
      type: list
      elements: dict
      contains:
        name: {type: str, description: The name.}
        expires: {type: str, description: "The time from which on it is refused, or null."}
    plain_keys: {type: bool, description: Whether there is a file with keys in plain text.}
"""


def main() -> None:
    """Parse the arguments, read the host and return what an audit judges."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": ROOT},
            "registry_root": {"type": "path", "default": REGISTRY_ROOT},
        },
        supports_check_mode=True,
    )
    try:
        found = read_audit(**module.params)
    except (AuditError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, audit=found)


if __name__ == "__main__":
    main()
