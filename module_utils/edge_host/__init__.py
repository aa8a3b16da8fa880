"""Acts on a host: reads it, downloads weights, manages releases, switches, recovers.

It runs on boards as root, with Python 3.8 or newer and the standard library only. Ansible's modules
import it as `ansible.module_utils.edge_host`; what runs on a host by itself imports it from one
archive (`edge_host.cli`). Some of its modules are pure functions that the control machine imports,
too: `constants`, `image_ref`, `engine_log`, `gpu_offload`, `release_record` and `sizes`.
"""
