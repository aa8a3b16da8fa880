#!/usr/bin/python
"""The host_info module: see `edge_host.host_info.state`."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.constants import PORTS, ROOT
from ansible.module_utils.edge_host.host_info.state import read_state

DOCUMENTATION = r"""
module: host_info
short_description: Read everything on a board that decisions need, in one call
description:
  - Reads board, docker, ports, deployment and models. Changes nothing, in check mode and out of it.
  - A docker that is missing or dead is a state that is returned, not a failure.
  - Run it as root, since it reads files that only root may read.
options:
  root:
    description: The deployment's folder. It need not exist yet.
    type: path
    default: /opt/edge-llm
  ports:
    description: TCP ports of the host to look at.
    type: list
    elements: int
    default: [8000, 11434]
  secrets:
    description:
      - Files expected under C(secrets/) of O(root), each with the SHA-256 that its content should
        have. An empty one stands for any content, as long as there is some.
      - Only whether each is as expected is returned.
    type: dict
    default: {}
  secrets_owner:
    description: The user id that these files must belong to. Any, where this is left out.
    type: int
author: edge-llm
"""

EXAMPLES = r"""
- name: Read the host
  host_info:
    secrets:
      api_keys: "{{ api_keys_text | hash('sha256') }}"
    secrets_owner: 10010
  register: board_state
"""

RETURN = r"""
state:
  description: What is on the host.
  returned: success
  type: dict
  contains:
    board:
      description: What is null, or empty, could not be read, or is not there.
      type: dict
      contains:
        kind: {type: str, description: "jetson, pi or generic."}
        name:
          description: >-
            The family, such as Jetson Orin Nano, Jetson AGX Xavier, Raspberry Pi 5 or Raspberry Pi
            Compute Module 4, from the device tree; or null.
          type: str
        model: {type: str, description: "What the device tree, or DMI, calls it; or null."}
        arch: {type: str, description: The kernel's name for the architecture.}
        userland_bits: {type: int, description: "32 or 64, of the programs."}
        os: {type: dict, description: "id, version_id, codename, pretty_name; each may be null."}
        l4t: {type: dict, description: "major, minor, patch, text; or null."}
        kernel:
          description: >-
            release (or null), memory_cgroup (can it limit the memory of a container) and ip_nf_raw
            (has it iptables' raw table): true, false, or null where nothing tells.
          type: dict
        boot:
          description: >-
            words (those about cgroups with which the kernel started, in their order; the last on a
            subject counts); and of a Raspberry Pi file (path of cmdline.txt, or null), file_words
            (those about cgroups in it) and lines (those with text; the firmware reads the first).
          type: dict
        cpus: {type: int, description: Usable by this process.}
        cpu_features:
          description: >-
            The features of all CPUs that decide how llama.cpp keeps weights in memory, by their
            names in /proc/cpuinfo; null where that names none.
          type: list
          elements: str
        memory_total: {type: int, description: "Bytes, as are the next four; null where unknown."}
        memory_available: {type: int, description: What programs could have.}
        memory_free: {type: int, description: What nothing uses.}
        swap_total: {type: int, description: All swap.}
        zram_total: {type: int, description: The part of it that is compressed memory.}
        gpus:
          description: >-
            name, memory_total and memory_free (bytes) of each NVIDIA GPU with memory of its own. A
            Jetson's has none.
          type: list
          elements: dict
        disk: {type: dict, description: "path, free, total (bytes)."}
        python: {type: str, description: The version of Python that read this.}
        init: {type: str, description: systemd or the name of process 1.}
        container: {type: bool, description: Whether the host is a container.}
        nvidia_runtime: {type: str, description: The path of nvidia-container-runtime or null.}
        gpu_groups:
          {type: list, elements: int, description: "Groups, but root's, that own a GPU's files."}
        power:
          description: >-
            mode (name, or null), id (or null) and modes (name to number) of nvpmodel; null where
            there is none.
          type: dict
        tuning:
          description: >-
            clocks (has edge-llm-clocks.service them at their highest), fan (the profile of
            nvfancontrol, or null).
          type: dict
        temperature: {type: float, description: "Degrees Celsius of the hottest zone, or null."}
        throttled:
          description: >-
            What a Raspberry Pi's firmware complains of, such as C(under-voltage now) or C(throttled
            since the start); null where it cannot be asked.
          type: list
          elements: str
        desktop: {type: str, description: "Main process of a desktop session that runs, or null."}
        time_synchronised: {type: bool, description: Null where it cannot be asked.}
        upgrades:
          description: >-
            unattended (does apt make upgrades by itself), held (those of Docker's packages that
            dpkg has on hold).
          type: dict
        root: {type: bool, description: Whether this was read as root.}
        apt: {type: bool, description: Whether there is one.}
        tools: {type: list, elements: str, description: "Of aria2c, curl, skopeo those there."}
        addresses: {type: list, elements: str, description: By which others reach the host.}
    docker:
      description: >-
        cli (is there a command), ce (are they Docker's own packages), packages (those of Docker
        that dpkg has installed), running (does the engine answer), version, compose (version of the
        plugin), runtimes, no_raw (whether the engine, or where none runs its service, has
        DOCKER_INSECURE_NO_IPTABLES_RAW=1), containers (how many run, of any project; null where the
        engine does not answer), error (why it does not answer, or null), daemon_json (or null),
        daemon_json_error (a sentence, or null).
      type: dict
    ports:
      description: >-
        For each port asked, as text: null where it is free, else addresses, process ("name (pid
        N)" or null) and container (name or null).
      type: dict
    deployment:
      description: >-
        files (sha256, mode, uid, gid of docker-compose.yml and .env, or null), secrets (name to
        boolean), containers (engine and api: id, image, image_id, status, health, restarts,
        started_at, config_hash; or null), ollama (model name to the sha256 of its weights, where
        the store has all of it and no second copy), images (all names known to the engine),
        engine_log (layers_offloaded, layers_total, gpu_buffers, platform (the kind of device that
        vLLM runs on, or null), gpu_said (lines about a GPU that it cannot use), gpu_reason (what
        they mean, or null), start_seconds).
      type: dict
    models:
      description: >-
        For each file in the models folder: size, mtime_ns, inode, links and recorded_sha256 (null
        unless the file is as it was when it was hashed).
      type: dict
"""


def main() -> None:
    """Read the state and hand it to Ansible."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": ROOT},
            "ports": {"type": "list", "elements": "int", "default": list(PORTS)},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "secrets_owner": {"type": "int", "no_log": False},
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
