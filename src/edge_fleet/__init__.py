"""Decides what every host of a fleet gets; runs on the control machine.

Pure functions over what Ansible read of the hosts and what the inventory says. It imports the pure
modules of `edge_host` and no part of Ansible.
"""
