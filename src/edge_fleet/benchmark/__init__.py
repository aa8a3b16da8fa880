"""Benchmarks of hosts: what is kept of each, and what it is compared with.

Not the project's own benchmarks of its parts, which are in benchmarks/.
"""
