#!/usr/bin/python
"""The host_info module: see `edge_host.host_info.state`."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.constants import PORTS, ROOT
from ansible.module_utils.edge_host.host_info.state import read_state

DOCUMENTATION = r"""
module: host_info
short_description: Read everything on a host that decisions need, in one call
description:
  - Reads board, Docker, ports, deployment and models. Changes nothing.
  - A Docker that is missing or does not run is a fact, not a failure.
  - Run this module as root, since some of the files are readable by root alone.
options:
  root:
    description: The folder of the deployment. It need not exist.
    type: path
    default: /opt/edge-llm
  ports:
    description: TCP ports of the host.
    type: list
    elements: int
    default: [8000, 11434]
  secrets:
    description:
      - Files expected below C(secrets/) of O(root), each with the SHA-256 of its content. An empty
        SHA-256 stands for any content but none. A file may be in a folder (C(tls/key.pem)).
      - Only whether each is as expected is returned.
    type: dict
    default: {}
  program:
    description:
      - The path that the host program of this version has on the host. By default nothing is said
        of the program and of the units that run it.
    type: path
author: edge-llm
"""

EXAMPLES = r"""
- name: Read the host
  host_info:
    program: "{{ '/opt/edge-llm/lib' | edge_llm_host_program }}"
    secrets:
      api_keys.jsonl: "{{ key_file | hash('sha256') }}"
  register: host
"""

# In upper case stands a name that differs from host to host.
RETURN = r"""
state:
  description: The facts of the host. A fact that cannot be read is null, or empty.
  returned: success
  type: dict
  contains:
    board:
      description: The board and its system.
      type: dict
      contains:
        kind: {type: str, description: "jetson, pi or generic."}
        name:
          description: >-
            The family from the device tree, such as Jetson Orin Nano or Raspberry Pi 5; or null.
          type: str
        model: {type: str, description: "The name in the device tree, or in DMI; or null."}
        arch: {type: str, description: The kernel's name for the architecture.}
        userland_bits: {type: int, description: "32 or 64, of the programs."}
        os:
          description: The operating system, from os-release.
          type: dict
          contains:
            id: {type: str, description: "ID, or null."}
            version_id: {type: str, description: "VERSION_ID, or null."}
            pretty_name: {type: str, description: "PRETTY_NAME, or null."}
        l4t:
          description: The release of Jetson Linux, or null.
          type: dict
          contains:
            major: {type: int, description: The major number.}
            minor: {type: int, description: The minor number.}
            patch: {type: int, description: The patch number.}
            text: {type: str, description: The numbers with dots between.}
        kernel:
          description: The kernel.
          type: dict
          contains:
            release: {type: str, description: "The release, or null."}
            memory_cgroup:
              description: Whether the memory of a container can be limited; null where unknown.
              type: bool
        boot:
          description: The kernel's command line, as far as it is about cgroups.
          type: dict
          contains:
            words:
              description: >-
                The words of the running kernel, in their order; the last one on a subject counts.
              type: list
              elements: str
            file: {type: str, description: "The path of cmdline.txt on a Raspberry Pi, or null."}
            file_words: {type: list, elements: str, description: The words in that file.}
            lines:
              description: The lines with text in that file; the firmware reads the first.
              type: int
        cpus: {type: int, description: The CPUs that a process may use.}
        cpu_features:
          description: >-
            The features of all CPUs that decide how llama.cpp keeps weights in memory, by their
            names in /proc/cpuinfo; null where there are no names.
          type: list
          elements: str
        memory_total: {type: int, description: Bytes of memory.}
        zram_total: {type: int, description: "Bytes of swap in compressed memory, or null."}
        gpus:
          description: The NVIDIA GPUs with memory of their own. A Jetson's has none.
          type: list
          elements: dict
          contains:
            name: {type: str, description: The name.}
            memory_total: {type: int, description: Bytes of memory.}
        disk:
          description: The file system of O(root).
          type: dict
          contains:
            path: {type: str, description: The folder that was looked at.}
            free: {type: int, description: Bytes that may still be written.}
            total: {type: int, description: Bytes in all.}
        python: {type: str, description: The version of the Python that this module ran with.}
        init: {type: str, description: "The name of process 1, such as systemd."}
        container: {type: bool, description: Whether the host is a container.}
        nvidia_runtime: {type: str, description: "The path of nvidia-container-runtime, or null."}
        gpu_groups:
          description: The groups that own a GPU's device files, without root's.
          type: list
          elements: int
        power:
          description: The power mode of a Jetson, from nvpmodel; null without one.
          type: dict
          contains:
            mode: {type: str, description: "The name of the mode, or null."}
            id: {type: int, description: "The number of the mode, or null."}
            modes:
              description: The modes that there are.
              type: dict
              contains:
                NAME: {type: int, description: The number of the mode NAME.}
        tuning:
          description: Clocks and fan of a Jetson.
          type: dict
          contains:
            clocks:
              description: Whether edge-llm-clocks.service sets the clocks to their highest.
              type: bool
            clocks_unit:
              description: Whether this unit's file is as this version of the project writes it.
              type: bool
            fan: {type: str, description: "The profile of nvfancontrol, or null."}
        temperature: {type: float, description: "Degrees Celsius of the hottest zone, or null."}
        throttled:
          description: >-
            Complaints of a Raspberry Pi's firmware, such as under-voltage now; null where it cannot
            be asked.
          type: list
          elements: str
        desktop: {type: str, description: "The main process of a desktop session, or null."}
        time_synchronised:
          description: Whether the clock is synchronised; null where unknown.
          type: bool
        upgrades:
          description: Upgrades of packages.
          type: dict
          contains:
            unattended: {type: bool, description: Whether apt upgrades by itself.}
            held:
              description: Packages of Docker that dpkg has on hold.
              type: list
              elements: str
        root: {type: bool, description: Whether this module ran as root.}
        accounts:
          description: Accounts of the host with the numbers of the project's users.
          type: list
          elements: dict
          contains:
            kind: {type: str, description: user or group.}
            name: {type: str, description: The name of the account.}
            id: {type: int, description: Its number.}
        tools:
          description: Those of curl and skopeo that the host has.
          type: list
          elements: str
        addresses:
          description: The addresses by which others reach the host.
          type: list
          elements: str
    docker:
      description: The Docker engine.
      type: dict
      contains:
        cli: {type: bool, description: Whether there is a docker command.}
        ce: {type: bool, description: Whether the packages are Docker's own.}
        packages:
          description: The packages of Docker that dpkg has installed.
          type: list
          elements: str
        running: {type: bool, description: Whether the engine answers.}
        version: {type: str, description: "The version of the engine, or null."}
        compose: {type: str, description: "The version of the Compose plugin, or null."}
        runtimes: {type: list, elements: str, description: The runtimes that the engine knows.}
        swarm:
          description: Whether the engine is a node of a swarm, or was when it ran last.
          type: bool
        live_restore:
          description: Whether containers go on while the engine is restarted.
          type: bool
        containers:
          description: >-
            How many containers run, of any project; null where the engine does not answer.
          type: int
        published_registry:
          description: >-
            Whether a registry of an earlier version of this project runs, whose port Docker
            publishes.
          type: bool
        error: {type: str, description: "Why the engine does not answer, or null."}
        own_registries:
          description: >-
            The insecure registries in daemon.json that this project has added; null where it has
            not noted any.
          type: list
          elements: str
        daemon_json:
          description: >-
            The options of /etc/docker/daemon.json that a plan can have; null where there is no such
            file. Others may hold a secret.
          type: dict
        daemon_json_error: {type: str, description: "Why that file cannot be read, or null."}
    addresses:
      description: The host's IPv4 and IPv6 addresses, of all interfaces.
      type: list
      elements: str
    ports:
      description: The ports of O(ports).
      type: dict
      contains:
        PORT:
          description: The listener on the port; null where the port is free.
          type: dict
          contains:
            addresses: {type: list, elements: str, description: The addresses that it listens on.}
            process: {type: str, description: "NAME (pid N), or null."}
            container: {type: str, description: "The container that publishes the port, or null."}
            unit: {type: str, description: "The socket unit of systemd for the port, or null."}
    deployment:
      description: The deployment below O(root).
      type: dict
      contains:
        files:
          description: docker-compose.yml, .env and engine/engine.env.
          type: dict
          contains:
            NAME:
              description: The file, or null.
              type: dict
              contains:
                sha256: {type: str, description: The hash of its content.}
                mode: {type: str, description: "Its permissions, such as 0644."}
                uid: {type: int, description: Its owner.}
                gid: {type: int, description: Its group.}
        secrets:
          description: The files of O(secrets).
          type: dict
          contains:
            NAME: {type: bool, description: Whether the file is as expected.}
        plain_keys:
          description: Whether a release on the host has a chat API that reads keys in plain text.
          type: bool
        containers:
          description: The containers of the current release; engine, api and network.
          type: dict
          contains:
            NAME:
              description: The container, or null.
              type: dict
              contains:
                id: {type: str, description: Its id.}
                image: {type: str, description: "Its image, as configured."}
                status: {type: str, description: "created, running, restarting, exited and so on."}
                health:
                  description: starting, healthy or unhealthy; null without a check.
                  type: str
                started_at: {type: str, description: The time of its start (RFC 3339).}
                namespace:
                  description: Its network namespace; null where it does not run.
                  type: str
        installed:
          description: >-
            Of O(program), of programs of other versions, and of each unit of systemd that stays on
            the host.
          type: dict
          contains:
            NAME:
              description: >-
                What was found of the file NAME, compared with what this version of the project
                installs; in place, missing, different, disabled or of another version.
              type: str
        release:
          description: The content of release.json of the current release, or null.
          type: dict
        previous: {type: dict, description: "The same of the previous release, or null."}
        change:
          description: A change that began and did not end; null where there is none.
          type: dict
          contains:
            from: {type: int, description: "The number of the release before, or null."}
            to: {type: int, description: The number of the new release.}
            by: {type: str, description: The operator.}
            since: {type: str, description: "The time of its start, in UTC (RFC 3339)."}
            step: {type: str, description: "The step that it began last, or null."}
        lock:
          description: Who changes the host now; null where nobody does.
          type: dict
          contains:
            by: {type: str, description: The operator.}
            since: {type: str, description: "The time since when, or null."}
            pid: {type: int, description: "The process, or null."}
        history:
          description: >-
            The last 20 changes, the newest last, each as C(result) of C(release).
          type: list
          elements: dict
        ollama:
          description: >-
            The models that Ollama's store has whole, without a second copy of the weights.
          type: dict
          contains:
            NAME:
              description: The hashes of the weights of the model NAME.
              type: list
              elements: str
        images: {type: list, elements: str, description: All names of images that the engine knows.}
        engine_log:
          description: The start of the engine's log.
          type: dict
          contains:
            layers_offloaded: {type: int, description: "Layers on the GPU, or null."}
            layers_total: {type: int, description: "Layers of the model, or null."}
            gpu_buffers:
              description: The GPUs that hold a part of the model.
              type: list
              elements: str
            platform: {type: str, description: "The kind of device that vLLM runs on, or null."}
            gpu_said:
              description: Lines about a GPU that the engine cannot use.
              type: list
              elements: str
            gpu_reason: {type: str, description: "The reason that these lines give, or null."}
            start_seconds:
              description: Seconds until the engine was ready, or null.
              type: float
    models:
      description: The files of the models folder.
      type: dict
      contains:
        PATH:
          description: The file at PATH below the folder.
          type: dict
          contains:
            size: {type: int, description: Bytes.}
            mtime_ns: {type: int, description: The time of its last change.}
            recorded_sha256:
              description: >-
                The verified hash; null where the file has changed since, or was never verified.
              type: str
            bundle: {type: str, description: "The name of the model's files together, or null."}
    unfinished:
      description: Downloads that are not complete.
      type: dict
      contains:
        NAME: {type: int, description: Bytes on the disk of the files NAME.}
"""


def main() -> None:
    """Parse the arguments, read the host and return its facts."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": ROOT},
            "ports": {"type": "list", "elements": "int", "default": list(PORTS)},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "program": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        state = read_state(**module.params)
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, state=state)


if __name__ == "__main__":
    main()
