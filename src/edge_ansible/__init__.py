"""What Ansible has no plugin type for: all hosts of a play in one process of the control machine.

The only package that knows Ansible; it decides nothing. `edge_fleet` compares hosts with their
plans, and `llm_provider` verifies chat APIs.
"""
