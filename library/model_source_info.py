#!/usr/bin/python
"""The model_source_info module: see `edge_host.download.source_check`."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_host.download.source_check import read_source_info

DOCUMENTATION = r"""
module: model_source_info
short_description: Check whether a source has the files of a model
description:
  - Asks the source for the headers of each file, and compares size and hash with the catalogue,
    where the source reports them. Where the source is a folder, looks for the files there.
  - Downloads nothing and changes nothing.
options:
  job:
    description: The download, as the filter C(edge_llm_fetch_jobs) returns it; name, files, mode.
    type: dict
    required: true
  token:
    description: The token for the source.
    type: str
    default: ""
  proxy:
    description: The proxy on the way to the source.
    type: str
    default: ""
  ca_certificates:
    description: Certificates (PEM) of authorities that sign for the source, beside the system's.
    type: str
    default: ""
author: edge-llm
"""

EXAMPLES = r"""
- name: Check the source
  model_source_info:
    job: "{{ job }}"
  register: source_info
  failed_when: source_info.problem is not none
"""

RETURN = r"""
problem:
  description: >-
    Why the source cannot provide the files, a sentence without its full stop; null where it can.
  returned: success
  type: str
"""


def main() -> None:
    """Parse the arguments, check the source and return the result."""
    module = AnsibleModule(
        argument_spec={
            "job": {"type": "dict", "required": True},
            "token": {"type": "str", "default": "", "no_log": True},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "ca_certificates": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    module.exit_json(**read_source_info(module.params))


if __name__ == "__main__":
    main()
