#!/usr/bin/python
"""The host_state module: parameters in, `edge_llm_host.read_state` out."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_llm_host import PORTS, ROOT, read_state

DOCUMENTATION = r"""
module: host_state
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
  host_state:
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
      description: >-
        kind (jetson, pi or generic), model (or null), arch, userland_bits, os (id, version_id,
        codename, pretty_name), l4t (major, minor, patch, text; or null), cpus (usable by this
        process), memory_total and memory_available (bytes), disk (path, free, total; bytes),
        python, init (systemd or the name of process 1), nvidia_runtime (path or null), apt
        (whether there is one).
      type: dict
    docker:
      description: >-
        cli (is there a command), running (does the engine answer), version, compose (version of
        the plugin), runtimes, error (why it does not answer, or null), daemon_json (or null),
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
        engine_log (layers_offloaded, layers_total, gpu_buffers, start_seconds).
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
