"""The plan: board facts + inventory settings + catalogues -> one dictionary that says everything
about a host's deployment, or the sentences that say why there can be none.

Pure functions only: nothing here reads a file, a clock or a host. Sizes are bytes throughout.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import re
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

MIB = 1024**2
GIB = 1024**3

# What the operating system, Docker and the chat API need beside the engine.
SYSTEM_MEMORY = 768 * MIB
LIMIT_STEP = 256 * MIB
# What stays free on the disk beside the weights: images' layers, logs, the next release.
DISK_RESERVE = 512 * MIB
# A batch is what an engine takes of prompts at once, a micro-batch what it computes at once.
BATCH, UBATCH = 2048, 512
# On boards with less than this, both are smaller: compute buffers are as large as the micro-batch.
SMALL_MEMORY = 3 * GIB
SMALL_BATCH, SMALL_UBATCH = 512, 128
# Bytes of a number in the KV cache: quantized ones come in blocks of 32 with a scale.
CACHE_TYPES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
# What CUDA's own context takes of a GPU's memory, beside the engine's buffers.
CUDA_MEMORY = 256 * MIB
F16_BYTES, F32_BYTES = 2, 4
SMALLEST_CONTEXT = 256
# vLLM's cache comes in blocks of up to 128 tokens, and one of them is its own.
SPARE_TOKENS = 256

REGISTRY_PORT = 5000
API_PORT = 8000
ENGINE_PORT = 11434
# All containers of this project: the door, and what held the ports before there was one.
OWN_CONTAINERS = "edge-llm-"

# An image that can only be what it was when it was named.
PINNED = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
# Options of /etc/docker/daemon.json that a reload takes in: no container stops for them.
RELOADABLE = (
    "debug",
    "insecure-registries",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "registry-mirrors",
)
MINIMUM_COMPOSE = (2, 18)
# Ollama's CUDA libraries for a Jetson, by the major number of L4T.
JETPACK_OF_L4T = {35: "5", 36: "6"}

Problem = str
Works = Callable[[dict[str, object]], bool]
"""Whether a plan with these settings changed has no problem that it has not without."""

_REPACK = Path(__file__).parents[1] / "module_utils" / "edge_llm_repack.py"


@cache
def _repack() -> ModuleType:
    """module_utils/edge_llm_repack.py: Ansible gives plugins no path to import it by."""
    spec = importlib.util.spec_from_file_location("edge_llm_repack", _REPACK)
    assert spec is not None and spec.loader is not None  # noqa: S101 - it is a file
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _choices(names: list[str]) -> str:
    return ", ".join(sorted(names))


def _closest(name: str, known: list[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {match[0]}?" if match else ""


def _mib(size: int) -> str:
    return f"{round(size / MIB):,} MiB"


_KEY_RULE = "accepted are 16 and more of letters, digits and . _ ~ + / = -"


def _is_key(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,}", value))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9._:/-]{1,128}", value))


def _is_source(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"https?://[^\s@]+|/\S.*", value))


def _is_batch(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return value > 0
    return isinstance(value, str) and bool(re.fullmatch(r"([1-9]\d?|100)%|[1-9]\d*", value))


def check_settings(
    given: dict[str, Any], schema: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], list[Problem]]:
    """Values of all settings, defaults filled in, and a sentence for each that cannot be.

    `given` holds the host's llm_* variables, `schema` the table of settings.yml. Whole numbers
    may come as text (an INI inventory and `-e a=b` have nothing else).
    """
    problems: list[Problem] = []
    values = {name: rule["default"] for name, rule in schema.items()}
    for name, value in sorted(given.items()):
        if name not in schema:
            problems.append(
                f"{name} is not a variable of this project;{_closest(name, list(schema))}"
                f" Accepted are: {_choices(list(schema))}."
            )
            continue
        if value is None or value == "":
            continue
        rule = schema[name]
        kind = rule["type"]
        if kind == "int":
            if isinstance(value, str) and re.fullmatch(r"\d+", value.strip()):
                value = int(value)
            low, high = rule.get("minimum"), rule.get("maximum")
            if (
                isinstance(value, bool)
                or not isinstance(value, int)
                or (low is not None and value < low)
                or (high is not None and value > high)
            ):
                span = f"from {low}" + (f" to {high}" if high is not None else " up")
                problems.append(f"{name} is {value!r}; accepted is a whole number {span}.")
                continue
        elif kind == "bool":
            if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):
                value = value.lower() in ("true", "yes")
            if not isinstance(value, bool):
                problems.append(f"{name} is {value!r}; accepted is true or false.")
                continue
        elif kind == "switch":
            # YAML reads on and off as true and false.
            if isinstance(value, bool):
                value = "on" if value else "off"
            if value not in ("auto", "on", "off"):
                problems.append(f"{name} is {value!r}; accepted are: auto, on, off.")
                continue
        elif kind == "image":
            texts = list(value.values()) if isinstance(value, dict) else [value]
            if not texts or not all(isinstance(text, str) and text for text in texts):
                problems.append(
                    f"{name} is {value!r}; accepted is an image, or a mapping of provider to image."
                )
                continue
        elif kind == "secret":
            if not _is_key(value):
                problems.append(f"{name} is too short or has other characters; {_KEY_RULE}")
                continue
        elif kind == "secrets":
            if not isinstance(value, list) or not all(_is_key(each) for each in value):
                problems.append(f"{name} is not a list of keys; of each, {_KEY_RULE}")
                continue
        elif kind == "names":
            if not isinstance(value, list) or not all(_is_name(each) for each in value):
                problems.append(
                    f"{name} is {value!r}; accepted is a list of names, each of letters, digits and"
                    " . _ : / -"
                )
                continue
        elif kind == "source":
            if not _is_source(value):
                # A password may be in it.
                told = "one with a user" if "@" in str(value) else repr(value)
                problems.append(
                    f"{name} is {told}; accepted is an address (https://HOST/PATH,"
                    " without a user or a password), or a folder of the control machine (/PATH)."
                )
                continue
        elif kind == "proxy":
            if not isinstance(value, str) or not re.fullmatch(r"https?://\S+", value):
                problems.append(
                    f"{name} is none that can be used; accepted is http://[USER:PASSWORD@]HOST:PORT."
                )
                continue
        elif kind == "batches":
            if not isinstance(value, list) or not value or not all(map(_is_batch, value)):
                problems.append(
                    f"{name} is {value!r}; accepted is a list of whole numbers from 1 up, and of"
                    " shares such as 25%."
                )
                continue
        elif not isinstance(value, str):
            problems.append(f"{name} is {value!r}; accepted is text.")
            continue
        if "choices" in rule and value not in rule["choices"]:
            problems.append(
                f"{name} is {value!r};{_closest(str(value), rule['choices'])}"
                f" Accepted are: {_choices(rule['choices'])}."
            )
            continue
        values[name] = value
    return values, problems


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _within(l4t: dict[str, Any], bounds: list[str]) -> bool:
    release = (l4t["major"], l4t["minor"])
    return _version(bounds[0]) <= release < _version(bounds[1])


# What a row of the image table may say beside the image: rules in place of its engine's, and more.
_RULES_OF_A_ROW = ("context", "outputs", "cache_types", "repacks")
_OF_A_ROW = ("entrypoint", *_RULES_OF_A_ROW, "environment")


def choose_image(
    engine: dict[str, Any], board: dict[str, Any], l4t: dict[str, Any] | None, gpu: bool = False
) -> dict[str, Any] | None:
    """The first row of an engine's image table that fits the board, or None.

    `gpu` is whether layers go onto one.
    """
    for row in engine["images"]:
        if row.get("gpu", gpu) != gpu:
            continue
        if row.get("kind", board["kind"]) != board["kind"]:
            continue
        if row.get("arch", board["arch"]) != board["arch"]:
            continue
        if "l4t" in row and (l4t is None or not _within(l4t, row["l4t"])):
            continue
        return dict(row)
    return None


def default_threads(cpus: int) -> int:
    """CPU threads for the engine: two cores stay free on boards that have six or more."""
    return cpus - 2 if cpus >= 6 else max(1, cpus)


class Need:
    """What serving a model takes of memory, in bytes, by part.

    Source of the parts: what llama-server and Ollama print when they load models of several shapes
    (tests/engines/test_memory.py holds it to them), for which they reserve everything at the start.

    Args:
        shape: layers, embedding, heads, kv_heads, head_size, feed_forward, vocabulary.
        weights: their bytes.
        engine: its rules: context (pool: all slots share llm_context_size tokens; slot: each has as
            many), ubatch (its own micro-batch, where it takes none), process (bytes of the
            process itself), outputs (batch: a whole micro-batch's logits are reserved; slots: one
            row for each slot).
        gpu: whether layers go onto one.
        repacking: what the CPU's own form of the weights takes besides (`repacking`).
    """

    def __init__(
        self,
        shape: dict[str, int],
        weights: int,
        engine: dict[str, Any],
        gpu: bool = False,
        repacking: int = 0,
    ) -> None:
        self._shape = shape
        self._weights = weights
        self._engine = engine
        self._gpu = gpu
        self._repacking = repacking

    def parts(
        self,
        context_size: int,
        parallel: int,
        cache_type: str = "f16",
        ubatch: int = UBATCH,
        flash_attention: str = "auto",
    ) -> dict[str, int]:
        """Each part, and their total."""
        shape, engine = self._shape, self._engine
        ubatch = engine.get("ubatch") or ubatch
        tokens = context_size * (parallel if engine["context"] == "slot" else 1)
        heads = shape["kv_heads"] * shape["head_size"]
        rows = parallel if engine.get("outputs", "slots") == "slots" else ubatch
        parts = {
            "weights": self._weights,
            "repacking": self._repacking,
            # Key and value of each layer, head and token.
            "kv_cache": round(2 * shape["layers"] * heads * tokens * CACHE_TYPES[cache_type]),
            "compute": self._compute(context_size, ubatch, flash_attention != "off"),
            "engine": engine["process"]
            + rows * shape["vocabulary"] * F32_BYTES
            + (CUDA_MEMORY if self._gpu else 0),
            "system": SYSTEM_MEMORY,
        }
        return {**parts, "total": sum(parts.values())}

    def _compute(self, context_size: int, ubatch: int, flash_attention: bool) -> int:
        """Intermediate results of one micro-batch, and who may look at which token."""
        shape = self._shape
        row = ubatch * F32_BYTES
        feed_forward = row * (3 * shape["feed_forward"] + 5 * shape["embedding"])
        if flash_attention:
            return feed_forward + context_size * ubatch * F16_BYTES
        scores = row * context_size * (shape["heads"] + 1) + row * 4 * shape["embedding"]
        keys = context_size * shape["kv_heads"] * shape["head_size"] * F32_BYTES
        return max(feed_forward + row * context_size, scores + keys)


def cpu_features(board: dict[str, Any], cpus: dict[str, list[str]]) -> list[str]:
    """The features of a board's CPU by which an engine decides how weights are kept in memory.

    `cpus` is the table of boards.yml, for facts that do not have them.
    """
    read: list[str] | None = board.get("cpu_features")
    if read is not None:
        return read
    return cpus.get(board.get("name") or "", cpus.get(board["arch"], []))


def repacking(entry: dict[str, Any], engine: dict[str, Any], features: Collection[str]) -> int:
    """Bytes that a model's weights take beside their files' size, because the engine keeps some of
    them in another form for a CPU with these features. `entry` is that of models.yml.
    """
    if not engine.get("repacks"):
        return 0
    weights = entry[engine["weights"]]
    size = sum(each["size"] for each in weights["files"] if each.get("part") != "projector")
    kept = _repack().in_memory(entry["shape"], weights["quantization"], size, features)
    return int(kept.mapped + kept.repacked - size)


def _board_problems(
    board: dict[str, Any], docker: dict[str, Any], boards: dict[str, Any]
) -> list[Problem]:
    problems: list[Problem] = []
    architectures = boards["architectures"]
    if board["arch"] not in architectures or board["userland_bits"] != 64:
        problems.append(
            f"the host is {board['arch']} with a {board['userland_bits']}-bit userland;"
            f" supported are 64-bit systems on: {_choices(list(architectures))}."
        )
    system, version = board["os"]["id"], board["os"]["version_id"]
    versions = boards["systems"].get(system, {})
    if version not in versions:
        known = [f"{name} {each}" for name, some in boards["systems"].items() for each in some]
        problems.append(
            f"the host runs {board['os'].get('pretty_name') or f'{system} {version}'};"
            f" supported are: {_choices(known)}."
        )
    elif not versions[version]["compose"] and not (docker["running"] and docker["compose"]):
        problems.append(
            f"Docker with its compose plugin is not running on the host, and the archive of"
            f" {system} {version} does not have the plugin; install Docker CE"
            " (docs.docker.com/engine/install) and run this again."
        )
    elif docker["ce"] and not (docker["running"] and docker["compose"]):
        problems.append(
            "Docker CE is installed on the host, and "
            + (
                "its compose plugin is missing; install docker-compose-plugin"
                if docker["running"]
                else f"does not answer ({docker['error']}); start it (systemctl start docker)"
            )
            + " and run this again."
        )
    if docker["compose"] and _version(docker["compose"])[:2] < MINIMUM_COMPOSE:
        problems.append(
            f"the host has docker compose {docker['compose']}; accepted is"
            f" {'.'.join(map(str, MINIMUM_COMPOSE))} or newer."
        )
    if not board["root"]:
        problems.append("the host was not read as root; set ansible_become: true for it.")
    if board["init"] != "systemd":
        problems.append(f"the host's init is {board['init']}; supported is systemd.")
    l4t = board["l4t"]
    if board["kind"] == "jetson" and l4t is None:
        problems.append("the board is a Jetson, and /etc/nv_tegra_release does not name its L4T.")
    elif board["kind"] == "jetson" and not _within(l4t, boards["l4t"]):
        problems.append(
            f"the host runs L4T {l4t['text']}; supported are releases from {boards['l4t'][0]}"
            f" up to, not including, {boards['l4t'][1]}."
        )
    if docker["daemon_json_error"]:
        problems.append(f"/etc/docker/daemon.json cannot be read: {docker['daemon_json_error']}")
    return problems


def _daemon_option_problems(options: dict[str, Any]) -> list[Problem]:
    return [
        f"board_docker_options has {name}, which Docker takes in by a restart only;"
        f" accepted are: {_choices(list(RELOADABLE))}."
        for name in sorted(options)
        if name not in RELOADABLE
    ]


def _lock_problems(lock: dict[str, Any] | None) -> list[Problem]:
    if lock is None:
        return []
    return [
        f"{lock['by']} has been changing the host since {lock['since']}; run this again when that"
        " has ended."
    ]


def _port_problems(ports: dict[str, Any], docker: dict[str, Any]) -> list[Problem]:
    problems: list[Problem] = []
    # While Docker starts, it holds its containers' ports and cannot say yet whose they are.
    starting = docker["cli"] and not docker["running"]
    for port, owner in ((API_PORT, "api"), (ENGINE_PORT, "engine")):
        listener = ports.get(str(port))
        if starting and listener and str(listener["process"]).startswith("docker-proxy (pid "):
            continue
        if listener and not (listener["container"] or "").startswith(OWN_CONTAINERS):
            holder = (
                f"container {listener['container']}"
                if listener["container"]
                else listener["process"] or "another process"
            )
            problems.append(
                f"port {port} is needed for the {'chat API' if owner == 'api' else 'engine'} and"
                f" is in use by {holder}; stop it, or move it to another port."
            )
    return problems


def pinned(row: dict[str, Any]) -> str:
    """The reference of a row of engines.yml that has a digest."""
    return f"{row['image']}@{row['digest']}"


def through_cache(image: str, cache: str | None) -> str:
    """Where a pinned image is pulled from: a cache's registry, where there is one, has each under
    the whole name that it has outside. What is not pinned is on the host already.
    """
    if cache is None or not PINNED.fullmatch(image):
        return image
    name, _, digest = image.partition("@")
    first, _, rest = name.partition("/")
    if not rest or not (first == "localhost" or set(first) & set(".:")):
        # As Docker reads a name without a registry.
        name = f"docker.io/{name if rest else f'library/{name}'}"
    host, _, path = name.partition("/")
    head, _, tail = path.rpartition("/")
    path = f"{head}/{tail.partition(':')[0]}".lstrip("/")
    # A colon may be in a host's name and not in a repository's.
    return f"{_authority(cache)}/{host.replace(':', '-')}/{path}@{digest}"


def _authority(cache: str) -> str:
    """A cache's registry as it stands in an image's name."""
    return f"[{cache}]:{REGISTRY_PORT}" if ":" in cache else f"{cache}:{REGISTRY_PORT}"


def _repository(image: str) -> str:
    """An image's name without tag and digest; a colon before the last slash is a port's."""
    name = image.partition("@")[0]
    head, _, tail = name.rpartition("/")
    return f"{head}/{tail.partition(':')[0]}".removeprefix("docker.io/")


def _engine_image(
    settings: dict[str, Any],
    provider: str,
    engine: dict[str, Any],
    state: dict[str, Any],
    gpu: bool,
) -> tuple[dict[str, Any], list[Problem]]:
    """{"image", "entrypoint", and what else its row of the table says}: the operator's own image
    before the table's.
    """
    board = state["board"]
    own = settings["llm_image"]
    if isinstance(own, dict):
        own = own.get(provider)
    if own:
        if not PINNED.fullmatch(own) and own not in state["deployment"]["images"]:
            return {}, [
                f"llm_image is {own}, which the host does not have; pin it as"
                f" {own.partition('@')[0]}@sha256:... so that what is pulled can be checked."
            ]
        repository = _repository(own)
        known = [row for row in engine["images"] if _repository(row["image"]) == repository]
        return {"image": own, "entrypoint": known[0].get("entrypoint") if known else None}, []
    row = choose_image(engine, board, board["l4t"], gpu)
    what = board["kind"] + (f" with L4T {board['l4t']['text']}" if board["l4t"] else "")
    if row is None:
        return {}, [
            f"engines.yml has no {provider} image for a {what} on {board['arch']};"
            " set llm_image to one (name@sha256:...)."
        ]
    if not row.get("digest"):
        return {}, [
            f"engines.yml has no digest for {row['image']}, the {provider} image for a {what};"
            f" write it there (docker buildx imagetools inspect {row['image']} names it),"
            " or set llm_image to an image of your own (name@sha256:...)."
        ]
    return {
        "image": pinned(row),
        **{key: row.get(key) for key in _OF_A_ROW},
    }, []


# What a file may be called: it becomes a path on the host, and a part of a URL.
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def _entry_problems(name: str, weights: dict[str, Any], mirror: str) -> list[Problem]:
    """Why a model's entry in models.yml cannot be used, a sentence."""
    files = weights["files"]
    unlocked = [] if weights["revision"] else ["revision"]
    unlocked += [key for key in ("size", "sha256") if not all(file.get(key) for file in files)]
    if unlocked:
        return [
            f"llm_model {name} has no {' and no '.join(unlocked)} in models.yml, so what is"
            f" downloaded could not be checked; `make lock MODEL={name}` asks {mirror} and writes"
            " them down."
        ]
    if not _REPOSITORY.fullmatch(str(weights["repository"])):
        return [
            f"llm_model {name} names the repository {weights['repository']!r} in models.yml;"
            " accepted is OWNER/NAME."
        ]
    for file in files:
        if not _FILE.fullmatch(str(file["file"])):
            return [
                f"llm_model {name} names the file {file['file']!r} in models.yml;"
                " accepted is a plain file name."
            ]
        if not re.fullmatch(r"[0-9a-f]{64}", str(file["sha256"])):
            return [
                f"llm_model {name} has the sha256 {file['sha256']!r} in models.yml;"
                " accepted are 64 hexadecimal digits."
            ]
        if not isinstance(file["size"], int) or file["size"] < 1:
            return [
                f"llm_model {name} has the size {file['size']!r} in models.yml; accepted is a"
                " number of bytes."
            ]
    return []


def _places(
    files: list[dict[str, Any]], name: str, kind: str, bundle: str, there: dict[str, Any]
) -> list[str]:
    """Where a model's files go below the host's models folder: their paths.

    Their own names, unless those belong to another content: what a release on the host serves must
    not change under it. A host that keeps weights for others has them in a folder of their own.
    """
    digest = bundle.rpartition("-")[2]
    if kind == "hf":
        # They are used as a folder, so they stay together.
        choices = [f"{name}.hf/", f"{name}.hf-{digest}/", f"{bundle}/"]
        ways = [[f"{folder}{file['file']}" for file in files] for folder in choices]
        return _first(files, ways, there)
    return [
        _first(
            [file],
            [
                [file["file"]],
                [f"{file['sha256'][:8]}-{file['file']}"],
                [f"{bundle}/{file['file']}"],
            ],
            there,
        )[0]
        for file in files
    ]


def _first(files: list[dict[str, Any]], ways: list[list[str]], there: dict[str, Any]) -> list[str]:
    """The first of several ways to name files by which they are there; else the first free one."""

    def recorded(path: str) -> str | None:
        found: str | None = there.get(path, {}).get("recorded_sha256")
        return found

    wanted = [file["sha256"] for file in files]
    for paths in ways:
        if list(map(recorded, paths)) == wanted:
            return paths
    for paths in ways[:-1]:
        if all(recorded(path) in (None, each) for path, each in zip(paths, wanted, strict=True)):
            return paths
    return ways[-1]


def _model(
    name: str,
    engine: dict[str, Any],
    provider: str,
    catalogue: dict[str, Any],
    mirror: str,
    there: dict[str, Any],
) -> tuple[dict[str, Any], list[Problem]]:
    """The model's part of the plan: its files, their hashes and addresses, the known answer.

    `there` is what the host's models folder has.
    """
    if name not in catalogue:
        return {}, [
            f"llm_model is {name!r};{_closest(name, list(catalogue))}"
            f" models.yml has: {_choices(list(catalogue))}."
        ]
    entry = catalogue[name]
    kind = engine["weights"]
    if kind not in entry:
        able = [each for each, model in catalogue.items() if kind in model]
        return {}, [
            f"llm_model {name} has no {kind} weights in models.yml, which {provider} needs;"
            f" models that have: {_choices(able) or 'none'}."
        ]
    weights = entry[kind]
    if problems := _entry_problems(name, weights, mirror):
        return {}, problems
    base = f"{weights['repository']}/resolve/{weights['revision']}"
    # The weights themselves first, whatever comes with them.
    entries = sorted(weights["files"], key=lambda file: "part" in file)
    content = "\n".join(f"{file['sha256']} {file['file']}" for file in entries)
    digest = hashlib.sha256(content.encode()).hexdigest()
    bundle = f"{name}.{kind}-{digest[:12]}"
    files = [
        {
            "name": file["file"],
            "path": path,
            "size": file["size"],
            "sha256": file["sha256"],
            "part": file.get("part", "weights"),
            "place": f"{base}/{file['file']}",
        }
        for file, path in zip(entries, _places(entries, name, kind, bundle, there), strict=True)
    ]
    parts = {file["part"]: file["path"] for file in reversed(files)}
    folder = files[0]["path"].rpartition("/")[0] if kind == "hf" else ""
    proof = entry.get("proof") or {}
    header = {"family": weights["family"], "quantization": weights["quantization"]}
    return {
        "name": name,
        "title": entry["title"],
        "kind": kind,
        # One name for these very files, wherever they are.
        "bundle": bundle,
        "files": files,
        "size": sum(file["size"] for file in files),
        "digest": digest,
        "family": weights["family"],
        "quantization": weights["quantization"],
        "gated": bool(weights.get("gated")),
        "shape": entry["shape"],
        "header": header | entry["shape"] if kind == "gguf" else {},
        "path": f"/models/{folder or parts['weights']}",
        "projector": f"/models/{parts['projector']}" if "projector" in parts else "",
        "proof": {"prompt": proof.get("prompt"), "answer": proof.get("answer")},
    }, []


def _context_problems(model: dict[str, Any], context_size: int) -> list[Problem]:
    trained = model["shape"]["context_trained"]
    if context_size <= trained:
        return []
    return [
        f"llm_context_size is {context_size}, and {model['name']} was trained for {trained} tokens;"
        f" accepted is up to {trained}."
    ]


def _fits(
    need: Need,
    available: int,
    settings: dict[str, Any],
    others: dict[str, Need],
    works: Works,
) -> list[str]:
    """Changes of one setting by which a model would fit, as they would stand in the inventory; only
    those that lead to no other problem.
    """

    def total(of: Need, **changed: object) -> int:
        return memory_parts(of, settings | changed)["total"]

    changes: list[dict[str, object]] = []
    size = settings["llm_context_size"] // SMALLEST_CONTEXT * SMALLEST_CONTEXT
    while size >= SMALLEST_CONTEXT and total(need, llm_context_size=size) > available:
        size -= SMALLEST_CONTEXT
    if size >= SMALLEST_CONTEXT:
        changes.append({"llm_context_size": size})
    if settings["llm_cache_type"] == "f16" and total(need, llm_cache_type="q8_0") <= available:
        changes.append({"llm_cache_type": "q8_0"})
    found = [each for each in changes if works(each)]
    # The largest of those that fit, which is what the operator will have wanted.
    totals = {name: total(of) for name, of in others.items()}
    for name in sorted(totals, key=lambda name: totals[name], reverse=True):
        if totals[name] <= available and works({"llm_model": name}):
            found.append({"llm_model": name})
            break
    return [f"{name}: {value}" for change in found for name, value in change.items()]


def _memory_problem(
    model: dict[str, Any], parts: dict[str, int], board: dict[str, Any], settings: dict[str, Any]
) -> Problem:
    """Why a model does not fit the host's memory."""
    told = ", ".join(
        f"{name.replace('_', ' ').replace('kv', 'KV')} {_mib(size)}"
        for name, size in parts.items()
        if name != "total" and size
    )
    return (
        f"{model['name']} with llm_context_size {settings['llm_context_size']} and llm_parallel"
        f" {settings['llm_parallel']} needs {_mib(parts['total'])} ({told}), and the host has"
        f" {_mib(board['memory_total'])} of memory"
    )


def _what_fits(
    need: Need,
    board: dict[str, Any],
    settings: dict[str, Any],
    others: dict[str, Need],
    works: Works,
) -> str:
    """The rest of that sentence: what would fit instead."""
    fitting = _fits(need, board["memory_total"], settings, others, works)
    if fitting:
        return f"; one of these would fit: {'; '.join(fitting)}."
    return "; no model of models.yml would fit with these settings."


def memory_parts(need: Need, settings: dict[str, Any]) -> dict[str, int]:
    """What a model takes with a host's settings."""
    return need.parts(
        settings["llm_context_size"],
        settings["llm_parallel"],
        settings["llm_cache_type"],
        settings["llm_ubatch_size"],
        settings["llm_flash_attention"],
    )


def _gpu_problems(
    model: dict[str, Any],
    parts: dict[str, int],
    board: dict[str, Any],
    layers: int,
    provider: str,
) -> list[Problem]:
    """Why a GPU with memory of its own has no room for the layers that are asked onto it."""
    if not layers or not board["gpus"]:
        return []
    share = min(1.0, layers / (model["shape"]["layers"] + 1))
    need = round(share * (parts["weights"] + parts["kv_cache"]) + parts["compute"]) + CUDA_MEMORY
    has = max(gpu["memory_total"] for gpu in board["gpus"])
    if need <= has:
        return []
    fitting = int(
        (has - parts["compute"] - CUDA_MEMORY)
        / (parts["weights"] + parts["kv_cache"])
        * (model["shape"]["layers"] + 1)
    )
    # Only llama.cpp puts a part of a model's layers there; vLLM has an image for the GPU alone.
    instead = {
        "llamacpp": f"accepted are up to {max(0, fitting)}.",
        "ollama": "accepted is 0, or choose a smaller llm_context_size or llm_model.",
    }.get(provider, "choose a smaller llm_context_size or llm_model.")
    return [
        f"llm_gpu_layers asks {layers} layers of {model['name']} onto the GPU, which takes"
        f" {_mib(need)} of its memory, and it has {_mib(has)}; {instead}"
    ]


def _missing(model: dict[str, Any], there: dict[str, Any]) -> list[dict[str, Any]]:
    """Files of a model that are not on the host, by name and size."""
    return [
        file
        for file in model["files"]
        if file["path"] not in there or there[file["path"]]["size"] != file["size"]
    ]


def _disk_problems(model: dict[str, Any], state: dict[str, Any], keep: int | None) -> list[Problem]:
    missing = sum(file["size"] for file in _missing(model, state["models"]))
    if not missing:
        return []
    disk = state["board"]["disk"]
    # What has come of it already takes no more.
    come = min(missing, state["unfinished"].get(model["bundle"], 0))
    need = missing - come + DISK_RESERVE
    goes = set(_prunable(state, model, keep))
    if disk["free"] + sum(state["models"][path]["size"] for path in goes) >= need:
        return []
    already = f", of which {_mib(come)} have come" if come else ""
    others = {path: size for path, size in unused(model, state).items() if path not in goes}
    hint = ""
    if others:
        names = ", ".join(sorted(others))
        hint = (
            f"; llm_models_keep: 0 would remove {names} ({_mib(sum(others.values()))}), which"
            " neither this release nor the one before uses"
        )
    return [
        f"{model['name']} needs {_mib(need)} of disk ({_mib(missing)} for its weights{already}"
        f" and {_mib(DISK_RESERVE)} in reserve), and {disk['path']} has {_mib(disk['free'])}"
        f" free{hint}."
    ]


def unused(model: dict[str, Any], state: dict[str, Any]) -> dict[str, int]:
    """Verified weights on the host that neither the plan nor a release that it could go back to
    needs: path -> size. Files that nobody verified are somebody's own, and not told of.
    """
    needed = {file["path"] for file in model["files"]}
    for name in ("release", "previous"):
        release = state["deployment"][name]
        # One that another version of this project has made tells of one file.
        model = release["plan"]["model"] if release else {}
        needed |= {file["path"] for file in model.get("files", [])} | {model.get("file")}
    return {
        path: there["size"]
        for path, there in state["models"].items()
        if there["recorded_sha256"] and path not in needed
    }


def _daemon_json(
    current: dict[str, Any] | None, options: dict[str, Any], runtime: str | None, binary: str | None
) -> dict[str, Any]:
    """/etc/docker/daemon.json as it should be: what is there stays, ours is merged in."""
    wanted: dict[str, Any] = dict(current or {})
    for key, value in options.items():
        if isinstance(value, list):
            kept = [each for each in wanted.get(key, []) if each not in value]
            wanted[key] = kept + value
        else:
            wanted[key] = value
    if runtime:
        runtimes = dict(wanted.get("runtimes") or {})
        runtimes.setdefault(runtime, {"path": binary, "runtimeArgs": []})
        wanted["runtimes"] = runtimes
    return wanted


NO_TRAPS: dict[str, Any] = {
    "problems": [], "notices": [], "fixes": {}, "reboot": [], "may_reboot": False
}  # fmt: skip


def with_defaults(settings: dict[str, Any], board: dict[str, Any]) -> dict[str, Any]:
    """The settings, with what the board decides filled in; docs/boards.md says why."""
    layers = 99 if board["kind"] == "jetson" else 0
    if settings["llm_gpu_layers"] is not None:
        layers = settings["llm_gpu_layers"]
    small = board["memory_total"] < SMALL_MEMORY
    decided = {
        "llm_gpu_layers": layers,
        "llm_gpu_required": layers > 0,
        "llm_threads": default_threads(board["cpus"]),
        "llm_batch_size": SMALL_BATCH if small else BATCH,
        "llm_ubatch_size": SMALL_UBATCH if small else UBATCH,
        "llm_cache_type": "f16",
        "llm_flash_attention": "auto",
    }
    # Quantized values can be read by flash attention alone.
    if settings["llm_cache_type"] not in (None, "f16"):
        decided["llm_flash_attention"] = "on"
    return settings | {name: value for name, value in decided.items() if settings[name] is None}


def l4t_of(l4t: dict[str, Any] | None, boards: dict[str, Any]) -> dict[str, str | None] | None:
    """{"text", "jetpack", "cuda"} of an L4T release; None for a board that has none."""
    if l4t is None:
        return None
    release = _version(l4t["text"])
    jetpack = {_version(key): value for key, value in boards["jetpack"].items()}
    cuda = {_version(key): value for key, value in boards["cuda"].items()}
    same = [key for key in jetpack if key[:2] == release[:2] and key <= release]
    before = [key for key in cuda if key[0] == release[0] and key <= release]
    return {
        "text": l4t["text"],
        "jetpack": jetpack[max(same)] if same else None,
        "cuda": cuda[max(before)] if before else None,
    }


def _engine_of(engine: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    """An engine's rules, with what its image's row has of its own."""
    row = {key: image[key] for key in _RULES_OF_A_ROW if image.get(key) is not None}
    return engine | row | {"environment": engine["environment"] | (image.get("environment") or {})}


def _cache_type_problems(
    settings: dict[str, Any], provider: str, engine: dict[str, Any]
) -> list[Problem]:
    asked = settings["llm_cache_type"]
    if asked not in engine["cache_types"]:
        return [
            f"llm_cache_type is {asked!r}, and {provider} with its image for this board has it not;"
            f" accepted are: {_choices(engine['cache_types'])}."
        ]
    if asked != "f16" and settings["llm_flash_attention"] == "off":
        return [
            f"llm_cache_type is {asked!r}, which takes flash attention, and llm_flash_attention is"
            " off; accepted is auto or on."
        ]
    return []


def _others(
    catalogue: dict[str, Any], engine: dict[str, Any], gpu: bool, features: Collection[str]
) -> dict[str, Need]:
    """What each locked, public model of the catalogue that the engine could serve would take."""
    kind = engine["weights"]
    found = {}
    for name, entry in catalogue.items():
        files = entry.get(kind, {}).get("files", [])
        if (
            entry.get("public", True)
            and files
            and all(file.get("size") and file.get("sha256") for file in files)
        ):
            size = sum(file["size"] for file in files)
            more = repacking(entry, engine, features)
            found[name] = Need(entry["shape"], size, engine, gpu, more)
    return found


def deployment_plan(
    state: dict[str, Any],
    host: str,
    given: dict[str, Any],
    catalogues: dict[str, Any],
    root: str = "/opt/edge-llm",
    url: str | None = None,
    docker_options: dict[str, Any] | None = None,
    images_cache: str | None = None,
    traps: dict[str, Any] | None = None,
    suggest: bool = True,
) -> dict[str, Any]:
    """Decide everything about a host's deployment.

    Args:
        state: what the `host_state` module returned for the host.
        host: its inventory name, for the sentences.
        given: its llm_* variables as the inventory has them.
        catalogues: the contents of settings.yml, models.yml, engines.yml and boards.yml in one
            dictionary (keys settings, models, engines, api, registry, architectures, systems, cpus,
            l4t, jetpack, cuda).
        root: where everything lives on the host.
        url: where clients reach its chat API.
        docker_options: what /etc/docker/daemon.json must hold besides.
        images_cache: the address of the host that llm_images_cache names, None where it is unknown.
        traps: what filter_plugins/traps.py found on the host.
        suggest: whether to say what would fit where memory does not suffice.

    Returns:
        {"problems": [sentence, ...]} where nothing can be deployed, else {"problems": [], and
        host, root, url, rollout, sources, images, provider, hardware, board, l4t, model, engine,
        gpu, api, memory, docker, traps, environment}.
    """
    asked_options = docker_options
    docker_options = docker_options or {}
    traps = traps or NO_TRAPS
    board, docker = state["board"], state["docker"]
    settings, problems = check_settings(given, catalogues["settings"])
    settings = with_defaults(settings, board)
    problems += _board_problems(board, docker, catalogues)
    problems += _lock_problems(state["deployment"]["lock"])
    problems += _port_problems(state["ports"], docker)
    problems += _daemon_option_problems(docker_options)
    base_image = settings["llm_api_base_image"] or pinned(catalogues["api"])
    if not PINNED.fullmatch(base_image):
        problems.append(
            f"llm_api_base_image is {base_image}; accepted is an image with CPython 3.13 and glibc,"
            " pinned as name@sha256:..."
        )

    registry_image = settings["llm_registry_image"] or pinned(catalogues["registry"])
    if not PINNED.fullmatch(registry_image):
        problems.append(
            f"llm_registry_image is {registry_image}; accepted is an image of a registry, pinned as"
            " name@sha256:..."
        )

    provider = settings["llm_provider"]
    if provider == "auto":
        provider = "llamacpp" if board["kind"] == "jetson" else "ollama"
    engine = catalogues["engines"][provider]
    context_size, parallel = settings["llm_context_size"], settings["llm_parallel"]
    gpu_layers, required = settings["llm_gpu_layers"], settings["llm_gpu_required"]

    image, image_problems = _engine_image(settings, provider, engine, state, gpu_layers > 0)
    engine = _engine_of(engine, image)
    cache = settings["llm_images_cache"]
    if cache and not images_cache:
        problems.append(
            f"llm_images_cache is {cache!r}, which the inventory has not; accepted is the name of a"
            " host in it."
        )
    if cache and images_cache:
        registry = _authority(images_cache)
        insecure = docker_options.get("insecure-registries", [])
        # What comes from there is checked by its digest.
        docker_options = docker_options | {"insecure-registries": [*insecure, registry]}
    model, model_problems = _model(
        settings["llm_model"],
        engine,
        provider,
        catalogues["models"],
        settings["llm_models_mirror"],
        state["models"],
    )
    problems += image_problems + model_problems

    runtime = "nvidia" if gpu_layers > 0 and board["kind"] != "pi" else None
    if gpu_layers > 0 and board["kind"] == "pi":
        problems.append(
            f"llm_gpu_layers is {gpu_layers}, and no engine uses a Pi's GPU; accepted is 0."
        )
    if runtime and not board["nvidia_runtime"] and runtime not in docker["runtimes"]:
        problems.append(
            "llm_gpu_layers asks for the GPU, and the host has no nvidia-container-runtime;"
            " install nvidia-container-toolkit, or set llm_gpu_layers to 0."
        )

    if model and provider != "llamacpp" and 0 < gpu_layers <= model["shape"]["layers"]:
        problems.append(
            f"llm_gpu_layers is {gpu_layers}, and {provider} has all layers of a model on the GPU"
            f" or decides by itself; accepted are 0 and {model['shape']['layers'] + 1} or more."
        )
    problems += _cache_type_problems(settings, provider, engine)
    memory: dict[str, int] = {}
    if model and settings["llm_cache_type"] in engine["cache_types"]:
        gpu = gpu_layers > 0
        # A GPU takes weights as they are. Where it is not required, the CPU may have to serve.
        on_gpu = gpu and required
        features = [] if on_gpu else cpu_features(board, catalogues["cpus"])
        more = repacking(catalogues["models"][model["name"]], engine, features)
        need = Need(model["shape"], model["size"], engine, gpu, more)
        memory = memory_parts(need, settings)
        model["present"] = not _missing(model, state["models"])
        too_long = _context_problems(model, context_size)
        problems += too_long
        problems += _gpu_problems(model, memory, board, gpu_layers, provider)
        problems += _disk_problems(model, state, settings["llm_models_keep"])

        def works(changed: dict[str, object]) -> bool:
            again = deployment_plan(
                state,
                host,
                given | changed,
                catalogues,
                root,
                url,
                asked_options,
                images_cache,
                traps,
                suggest=False,
            )
            known = {*(f"{host}: {each}" for each in problems), *traps["problems"]}
            return known.issuperset(again["problems"])

        if memory["total"] > board["memory_total"] and not too_long:
            problem = _memory_problem(model, memory, board, settings)
            if suggest:
                others = _others(catalogues["models"], engine, gpu, features)
                problem += _what_fits(need, board, settings, others, works)
            problems.append(problem)
    if problems or traps["problems"]:
        return {"problems": [f"{host}: {each}" for each in problems] + traps["problems"]}

    jetpack = {}
    if provider == "ollama" and board["l4t"] and board["l4t"]["major"] in JETPACK_OF_L4T:
        jetpack = {"JETSON_JETPACK": JETPACK_OF_L4T[board["l4t"]["major"]]}
    outside = [image["image"], base_image]
    inside = [through_cache(each, images_cache if cache else None) for each in outside]
    packages = catalogues["systems"][board["os"]["id"]][board["os"]["version_id"]]
    daemon_json = _daemon_json(
        docker["daemon_json"],
        docker_options,
        None if runtime in docker["runtimes"] else runtime,
        board["nvidia_runtime"],
    )
    return {
        "problems": [],
        "host": host,
        "root": root,
        "url": url or f"http://{host}:{API_PORT}",
        "rollout": settings["llm_rollout"],
        "sources": {
            "mirror": settings["llm_models_mirror"].rstrip("/"),
            "cache": settings["llm_models_cache"],
            "port": settings["llm_models_port"],
            "keep": settings["llm_models_keep"],
            "rehash": settings["llm_models_rehash"],
        },
        "images": {
            "cache": cache,
            # Of the registry itself, should this host be one's cache.
            "registry": registry_image,
            "port": REGISTRY_PORT,
            # Those that are pulled from the cache: what each is outside.
            "outside": {
                there: here for there, here in zip(inside, outside, strict=True) if there != here
            },
        },
        "provider": provider,
        "hardware": board["kind"],
        "board": board["model"] or board["kind"],
        "l4t": l4t_of(board["l4t"], catalogues),
        "model": model,
        "engine": {
            "image": inside[0],
            "entrypoint": image["entrypoint"] or engine.get("entrypoint"),
            "shm_size": engine.get("shm_size"),
            "command": engine["command"],
            "environment": engine["environment"]
            | (engine.get("projector", {}) if model["projector"] else {})
            | jetpack,
            "healthcheck": engine["healthcheck"],
            "key": engine["key"],
            "context": engine["context"],
            # One that leaks ends itself, and not the host. A kernel's update changes what it tells
            # of the memory by a little, and must not change a release.
            "memory_limit": (board["memory_total"] - SYSTEM_MEMORY // 2) // LIMIT_STEP * LIMIT_STEP,
            # Without rules in the raw table, what is published for the host itself can be reached
            # from its network (moby/moby#49621).
            "published": not (docker["no_raw"] or "no_raw" in traps["fixes"]),
        },
        "gpu": {
            "layers": gpu_layers,
            # Those of the model, and its output.
            "of": model["shape"]["layers"] + 1,
            "required": required,
            "runtime": runtime,
            # A container's user that is not root reaches the GPU's devices by their groups.
            "groups": board["gpu_groups"] if runtime else [],
        },
        "api": {
            "base_image": inside[1],
            "architecture": catalogues["architectures"][board["arch"]],
        },
        "memory": memory,
        "docker": {
            "packages": ([] if docker["running"] else packages["docker"])
            + ([] if docker["running"] and docker["compose"] else packages["compose"]),
            "daemon_json": daemon_json,
        },
        "traps": traps,
        # The host's .env, in the order in which a person reads it.
        "environment": {
            "LLM_PROVIDER": provider,
            "LLM_MODEL": model["name"],
            "MODEL_PATH": model["path"],
            **({"MMPROJ_PATH": model["projector"]} if model["projector"] else {}),
            "CTX_SIZE": context_size,
            "N_GPU_LAYERS": gpu_layers,
            "THREADS": settings["llm_threads"],
            "PARALLEL": parallel,
            "CTX_TOTAL": context_size * parallel,
            "BATCH": settings["llm_batch_size"],
            "UBATCH": settings["llm_ubatch_size"],
            "FLASH_ATTENTION": engine["flash_attention"][settings["llm_flash_attention"]],
            "CACHE_TYPE": settings["llm_cache_type"],
            "KV_CACHE_BYTES": memory["kv_cache"] // context_size * (context_size + SPARE_TOKENS),
            "LLM_MODEL_ALIASES": ",".join(settings["llm_model_aliases"]),
            "HARDWARE": board["kind"],
            "ENGINE_IMAGE": inside[0],
        },
    }


def models_in_place(state: dict[str, Any], plan: dict[str, Any]) -> bool:
    """Whether the plan's weights are on the host, hashed there, and known to its engine."""
    model, there = plan["model"], state["models"]
    if plan["sources"]["rehash"] or prunable(state, plan):
        return False
    for file in model["files"]:
        found = there.get(file["path"])
        if not found or (found["size"], found["recorded_sha256"]) != (file["size"], file["sha256"]):
            return False
    if plan["provider"] != "ollama":
        return True
    known = state["deployment"]["ollama"].get(model["name"])
    return bool(known == [file["sha256"] for file in model["files"]])


def prunable(state: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    """Weights on the host that llm_models_keep has go (paths): the models that came last stay."""
    return _prunable(state, plan["model"], plan["sources"]["keep"])


def _prunable(state: dict[str, Any], model: dict[str, Any], keep: int | None) -> list[str]:
    if keep is None:
        return []
    there = state["models"]
    bundles: dict[str, list[str]] = {}
    for path in unused(model, state):
        bundles.setdefault(there[path]["bundle"] or path, []).append(path)
    latest = sorted(
        bundles.values(), key=lambda paths: max(there[path]["mtime_ns"] for path in paths)
    )
    return sorted(path for paths in latest[: max(0, len(latest) - keep)] for path in paths)


def docker_in_place(state: dict[str, Any], plan: dict[str, Any]) -> bool:
    """Whether Docker runs on the host as the plan wants it."""
    docker = state["docker"]
    runtime = plan["gpu"]["runtime"]
    return bool(
        docker["running"]
        and docker["compose"]
        and (docker["daemon_json"] or {}) == plan["docker"]["daemon_json"]
        and (runtime is None or runtime in docker["runtimes"])
    )


def release_in_place(
    state: dict[str, Any], plan: dict[str, Any], api_image: str, files: dict[str, str]
) -> bool:
    """Whether the host runs the release that is asked, whole and untouched by hand.

    `files` maps the names of a release's files to what they would hold, as rendered.
    """
    deployment = state["deployment"]
    release, containers = deployment["release"], deployment["containers"]
    if release is None or deployment["change"] is not None:
        return False
    asked = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    found = {
        name.rpartition("/")[2]: file and file["sha256"]
        for name, file in deployment["files"].items()
    }
    images = {"engine": plan["engine"]["image"], "api": api_image}
    return (
        release["rendered"] == asked
        and release["plan"]["model"].get("digest") == plan["model"]["digest"]
        and release["written"] == found
        and api_image in deployment["images"]
        and all(
            containers.get(service) is not None
            and containers[service]["status"] == "running"
            and containers[service]["health"] in ("healthy", None)
            and containers[service]["image"] == images.get(service, containers[service]["image"])
            for service in ("engine", "api", "door")
        )
    )


def stack_in_place(
    state: dict[str, Any], plan: dict[str, Any], api_image: str, files: dict[str, str]
) -> bool:
    """Whether nothing is left to do: the release and the keys are as asked."""
    return all(state["deployment"]["secrets"].values()) and release_in_place(
        state, plan, api_image, files
    )


class FilterModule:
    """The names under which playbooks and roles reach these functions."""

    def filters(self) -> dict[str, Any]:
        return {
            "edge_llm_plan": deployment_plan,
            "edge_llm_docker_in_place": docker_in_place,
            "edge_llm_models_in_place": models_in_place,
            "edge_llm_prunable": prunable,
            "edge_llm_release_in_place": release_in_place,
            "edge_llm_stack_in_place": stack_in_place,
        }
