"""Names, ports, sizes and folders that every part of the project agrees on.

Pure data: the control machine imports this module, too.
"""

from __future__ import annotations

KIB, MIB = 1024, 1024**2
ROOT = "/opt/edge-llm"
MODELS = f"{ROOT}/models"
API_PORT, ENGINE_PORT = 8000, 11434
PORTS = (API_PORT, ENGINE_PORT)
ENGINE_PORTS = {"a": ENGINE_PORT, "b": ENGINE_PORT + 1}
"""Where the engine in each slot listens, at the loopback address of NETWORK."""
REGISTRY_PORT = 5000
DISK_RESERVE = 512 * MIB
"""Bytes of disk that stay free beside the weights: images' layers, logs, the next release."""
DOWNLOAD_PACKAGES = {"curl": "curl"}
"""Commands that downloads take, and the package of the system's archive that has each."""
# One user for each job, each with a group of the same number. They are numbers without an account:
# containers and setpriv take those, and a host must not have accounts with them (plan.board).
API_UID = 10010
"""The chat API and the socket holder. Before there was one user for each job, it was of all jobs,
so a host of an earlier version has its files."""
ENGINE_UID = 10011
DOWNLOAD_UID = 10012
"""The programs that exchange files with other machines. They write no file."""
REGISTRY_UID = 10013
USER_IDS = (API_UID, ENGINE_UID, DOWNLOAD_UID, REGISTRY_UID)
SECRETS = "secrets"
"""The folder of the keys."""
ENGINE_KEY = "engine_key"
"""A file in it: the key by which the chat API asks its engine."""
CLIENT_KEYS, PLAIN_KEYS = "api_keys.jsonl", "api_keys"
"""Files in it: hashes of clients' keys, and their keys in plain text, which only the chat APIs of
releases of earlier versions read."""
OWN_KEY_LINE = "# own key: "
"""A line of CLIENT_KEYS begins so; the rest is the key by which a host asks its own chat API."""
DEPLOYED_FILES = ("docker-compose.yml", ".env", "engine/engine.env")
PROJECT = "edge-llm"
"""Of Docker Compose; its containers have names that begin so."""
REGISTRY_PROJECT = f"{PROJECT}-registry"
"""The same, of the fleet's image registry."""
NETWORK = f"{PROJECT}-network"
"""The container whose network namespace engines and chat APIs share: it has loopback only."""
SOCKETS_UNIT = f"{PROJECT}-sockets.socket"
"""The unit by which systemd holds PORTS for the chat API."""
SOCKETS_MEMORY = 32 * MIB
"""The memory limit of the program that hands these sockets on: it takes half of it, whatever
clients do."""
DOOR, DEFAULT_NETWORK = f"{PROJECT}-door", f"{PROJECT}_default"
"""Of releases of earlier versions: the container that published PORTS and held connections, and the
network of Docker in which engines and chat APIs had addresses."""
# Two containers can stand for a part: one that serves, one that is coming or going.
CONTAINERS = tuple(f"{PROJECT}-{part}-{slot}" for part in ("engine", "api") for slot in "ab")
RELOADABLE = (
    "debug",
    "insecure-registries",
    "live-restore",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "registry-mirrors",
)
"""Options of /etc/docker/daemon.json that take effect at a reload: no container stops for them.
None of them holds a secret: dockerd refuses a mirror with a password in its address
(ValidateMirror in registry/config.go of github.com/moby/moby)."""
PLANNED_OPTIONS = (*RELOADABLE, "runtimes")
"""The options of that file which a plan can have. Facts have no others: those may hold a secret,
such as a proxy's password or the token of a log driver."""
IN_PLACE = "in place"
"""What a host says of its program, and of a unit of systemd, that is as it is to be."""
RELEASES, JOURNAL, LOCK = "releases", "change.json", ".lock"
HISTORY = "releases/history.jsonl"
RELEASE = "release.json"
RECORD = ".verified.json"
RECORD_LOCK = f"{RECORD}.lock"
WORKSHOP = ".fetch"  # below models: what is not whole, or not verified, yet
OLLAMA_STORE = "ollama"  # below models
OLLAMA_LIBRARY = "manifests/registry.ollama.ai/library"  # below that
OLLAMA_WEIGHTS_TYPE = "application/vnd.ollama.image.model"
OLLAMA_PROJECTOR_TYPE = "application/vnd.ollama.image.projector"
# What decides how llama.cpp keeps weights in memory (edge_fleet.plan.repacking), by its names in
# /proc/cpuinfo: of x86-64, and in the last line of arm64.
CPU_FEATURES = {
    *("avx", "avx2", "bmi2", "f16c", "fma", "avx512bw", "avx512cd", "avx512dq", "avx512f"),
    *("avx512vl", "avx512_bf16", "avx512_vnni", "avx512vbmi", "amx_int8", "amx_tile"),
    *("asimddp", "i8mm", "sve", "sve2"),
}
IMAGE_HOURS = 12
"""The time limit of one image's way to a host: no line that a fleet could live with is slower."""
