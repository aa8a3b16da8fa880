#!/usr/bin/python
"""The model_store module: see `edge_host.weights.store`."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.constants import MODELS
from ansible.module_utils.edge_host.weights.request import StoreError
from ansible.module_utils.edge_host.weights.store import update_store

DOCUMENTATION = r"""
module: model_store
short_description: Verify weights on a board and offer them to Ollama without a second copy
description:
  - Each file must be there with the size and SHA-256 asked. It is read whole once, and again only
    when its size or time of change differ from the record C(.verified.json), or O(rehash) is set.
  - A file with another hash is renamed to C(NAME.rejected), and the module fails.
  - For Ollama, a hard link, a config blob and a manifest are written, as a pull would have written
    them.
  - Other files, among them unfinished downloads, and the manifests of other models are left alone.
  - In check mode nothing is written. A file that is missing or of another size is then reported in
    RV(missing), as fetching it is another step's work; a file with a wrong hash fails there too.
options:
  root:
    description: The models folder.
    type: path
    default: /opt/edge-llm/models
  files:
    description: The files that must be there.
    type: list
    elements: dict
    default: []
    suboptions:
      file:
        description: Its name in O(root).
        type: str
        required: true
      size:
        description: Bytes.
        type: int
        required: true
      sha256:
        description: Of its content, 64 hexadecimal digits in lower case.
        type: str
        required: true
      bundle:
        description: The name of the model's files together.
        type: str
        default: ""
  ollama:
    description: The models that Ollama is to offer. Each must be one of O(files).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The model's name. Its tag is C(latest).
        type: str
        required: true
      file:
        description: As in O(files).
        type: str
        required: true
      size:
        description: As in O(files).
        type: int
        required: true
      sha256:
        description: As in O(files).
        type: str
        required: true
      bundle:
        description: As in O(files).
        type: str
        default: ""
      projector:
        description: What makes a model of vision see; file, size and sha256 as in O(files).
        type: dict
        default: {}
      family:
        description: The GGUF's architecture, such as C(llama).
        type: str
        required: true
      quantization:
        description: Such as C(Q4_K_M). Ollama shows it.
        type: str
        required: true
      parameters:
        description: How many, such as C(3.2B). Ollama shows it.
        type: str
        default: ""
  remove:
    description:
      - Verified files that may go. One that the current or the previous release uses stays.
    type: list
    elements: str
    default: []
  rehash:
    description: Read the files again, whatever the record says.
    type: bool
    default: false
author: edge-llm
"""

EXAMPLES = r"""
- name: Verify the weights and offer them to Ollama
  model_store:
    files:
      - {file: smoke-1.gguf, size: 430000, sha256: "{{ smoke_sha256 }}"}
    ollama:
      - name: smoke
        file: smoke-1.gguf
        size: 430000
        sha256: "{{ smoke_sha256 }}"
        family: llama
        quantization: F16
"""

RETURN = r"""
actions:
  description: A line for each thing that was written, or in check mode would be.
  returned: success
  type: list
  elements: str
hashed:
  description: The files that were read whole.
  returned: success
  type: list
  elements: str
missing:
  description: In check mode, the files that are not there with the size asked.
  returned: success
  type: list
  elements: str
"""


def main() -> None:
    """Place the models and tell Ansible what was done."""
    weights = {
        "file": {"type": "str", "required": True},
        "size": {"type": "int", "required": True},
        "sha256": {"type": "str", "required": True},
        "bundle": {"type": "str", "default": ""},
    }
    model = {
        "name": {"type": "str", "required": True},
        **weights,
        "projector": {"type": "dict", "default": {}},
        "family": {"type": "str", "required": True},
        "quantization": {"type": "str", "required": True},
        "parameters": {"type": "str", "default": ""},
    }
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": MODELS},
            "files": {"type": "list", "elements": "dict", "options": weights, "default": []},
            "ollama": {"type": "list", "elements": "dict", "options": model, "default": []},
            "remove": {"type": "list", "elements": "str", "default": []},
            "rehash": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        result = update_store(check=module.check_mode, **module.params)
    except (OSError, StoreError) as error:
        module.fail_json(msg=str(error))
    if module._diff and result["actions"]:
        result["diff"] = {
            "before": "",
            "after": "".join(f"{action}\n" for action in result["actions"]),
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
