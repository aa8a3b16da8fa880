"""The inventory variables that a user sets: type, default, bounds and meaning of each.

This schema validates a host's llm_* and board_* variables, and docs/variables.md is generated from
it. A default of None means that the value is decided from the board or from the inventory;
`default_text` says how.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from edge_fleet.chat_api_settings import ChatApiSettings
from edge_fleet.setting_types import (
    AbsolutePath,
    Advice,
    Batches,
    Boolean,
    CacheType,
    DockerOptions,
    EngineName,
    FilePath,
    Image,
    InvalidPartError,
    Key,
    PinnedImage,
    PowerMode,
    Proxy,
    Share,
    Source,
    SuiteNames,
    Switch,
    Text,
    WholeNumber,
    field_advice,
    field_bounds,
    field_choices,
    plain,
)
from edge_fleet.setting_types import variable as _variable
from edge_fleet.text import Problem, did_you_mean
from edge_host.constants import ROOT

Provider = Literal["auto", EngineName]
PREFIXES = ("llm_", "board_")


class Settings(ChatApiSettings):
    """The variables of one host, with the defaults filled in."""

    llm_provider: Provider = _variable(
        "auto", "ollama", "The engine. `auto` is `llamacpp` on a Jetson and `ollama` elsewhere."
    )
    llm_model: Text = _variable(
        "llama-3.2-3b-instruct", "smollm2-135m", "The model, a key of models.yml."
    )
    llm_context_size: WholeNumber | None = _variable(
        None, 8192,
        "Tokens of one conversation; the same meaning on every engine. Of a model for embeddings or"
        " reranking: tokens of one input.",
        "4096, or as many as model and engine can have where that is less", ge=256,
    )  # fmt: skip
    llm_parallel: WholeNumber | None = _variable(
        None, 2, "Conversations that are answered at the same time (slots).",
        "4; 1 where the engine serves the model one request at a time", ge=1, le=64,
    )  # fmt: skip
    llm_gpu_layers: WholeNumber | None = _variable(
        None, 20, "Layers of the model on the GPU.", "99 on a Jetson (all layers), else 0",
        ge=0, le=999,
    )  # fmt: skip
    llm_gpu_required: Boolean | None = _variable(
        None, False, "Whether the host fails when requested layers are not on the GPU.",
        "true if `llm_gpu_layers` is above 0",
    )  # fmt: skip
    llm_threads: WholeNumber | None = _variable(
        None, 3, "CPU threads of llama.cpp. Ollama chooses its own number.",
        "all cores; two fewer on boards with six or more", ge=1, le=256,
    )  # fmt: skip
    llm_batch_size: WholeNumber | None = _variable(
        None, 1024, "Prompt tokens that llama.cpp accepts in one batch.",
        "2048; 512 on boards with less than 3 GiB", ge=1, le=65536,
    )  # fmt: skip
    llm_ubatch_size: WholeNumber | None = _variable(
        None, 256,
        "Prompt tokens that llama.cpp computes at once. The compute buffers grow with this value."
        " Ollama chooses its own.",
        "512; 128 on boards with less than 3 GiB", ge=1, le=65536,
    )  # fmt: skip
    llm_cache_type: CacheType | None = _variable(
        None, "q8_0",
        "Number format of the KV cache. `q8_0` needs half of the memory of `f16`, `q4_0` a third.",
        "f16",
    )  # fmt: skip
    llm_flash_attention: Switch | None = _variable(
        None, "on",
        "Attention without a table of all tokens. `auto` uses it where the engine supports it.",
        "auto; on with a quantized `llm_cache_type`",
    )  # fmt: skip
    llm_image: Image | None = _variable(
        None, {"llamacpp": "registry.example/llama.cpp@sha256:..."},
        "An engine image of your own: `name@sha256:...`, or a mapping of provider to image. A tag"
        " without digest is valid if the host already has that image.",
        "the image of engines.yml for the board",
    )  # fmt: skip
    llm_api_base_image: PinnedImage | None = _variable(
        None, "docker.io/library/python@sha256:...",
        "The image, by digest, on which the chat API's image is built: CPython 3.13 with glibc.",
        "the image of engines.yml",
    )  # fmt: skip
    llm_models_mirror: Source = _variable(
        "https://huggingface.co", "/media/usb",
        "The source of the weights: a server that answers /OWNER/NAME/resolve/REVISION/FILE, or a"
        " folder of the control machine with FILE, OWNER/NAME/FILE or MODEL/FILE.",
    )  # fmt: skip
    llm_models_cache: Text = _variable(
        "auto", "localhost",
        "Which machine downloads from the source for all hosts: `auto` (the first host that needs"
        " the weights; none if a host of the fleet has them), `localhost` (the control machine) or"
        " a host of the inventory.",
    )  # fmt: skip
    llm_models_token: Key | None = _variable(
        None, "{{ vault_hub_token }}",
        "The token for gated models of the source, which must then be encrypted (https). Keep it in"
        " Ansible Vault.",
        "none", repr=False,
    )  # fmt: skip
    llm_models_proxy: Proxy | None = _variable(
        None, "http://proxy.example:3128", "The proxy for downloads from the source.", "none",
        repr=False,
    )  # fmt: skip
    llm_models_ca: FilePath | None = _variable(
        None, "/etc/ssl/our-ca.pem",
        "A file of the control machine with certificate authorities (PEM) for the source, in"
        " addition to the system's.",
        "none",
    )  # fmt: skip
    llm_models_port: WholeNumber = _variable(
        6881, 7000, "The TCP port at which hosts give each other weights during a download.",
        ge=1024, le=65000,
    )  # fmt: skip
    llm_models_keep: WholeNumber | None = _variable(
        None, 2,
        "How many models stay on a host in addition to those of its current and its previous"
        " release. The models that were downloaded last stay.",
        "all", ge=0, le=1000,
    )  # fmt: skip
    llm_models_rehash: Boolean = _variable(
        False, True, "Whether installed weights are hashed again, whatever was recorded."
    )
    llm_images_cache: Text | None = _variable(
        None, "pi-01",
        "A host of the inventory that pulls each image once, and from which the others pull it.",
        "none: each host pulls for itself",
    )  # fmt: skip
    llm_registry_image: PinnedImage | None = _variable(
        None, "docker.io/library/registry@sha256:...",
        "The image, by digest, of the registry on the host that `llm_images_cache` names.",
        "the image of engines.yml",
    )  # fmt: skip
    llm_suite: SuiteNames = _variable(
        [], ["chat"],
        "[Test suites](suites.md) that the host must pass to be verified. A change after"
        " which the host fails one is rolled back.",
    )  # fmt: skip
    llm_rollout: Batches = _variable(
        [1, "100%"], [1, "25%", "100%"],
        "How many hosts are changed at the same time: numbers, or shares of all hosts that change."
        " A batch starts when the one before is verified. If one fails, the next hosts keep their"
        " release.",
    )  # fmt: skip

    llm_benchmark_gate: Share | None = _variable(
        None, 0.8,
        "The share of its baseline that the first host of a rollout must reach in a"
        " [benchmark](benchmarks-of-hosts.md) after its change. If it is slower, it fails, and the"
        " next hosts keep their release.",
        "none: no benchmark is run", gt=0, le=1,
    )  # fmt: skip

    board_root: AbsolutePath = _variable(ROOT, "/srv/edge-llm", "The project's folder on the host.")
    board_address: Text | None = _variable(
        None, "kitchen.example",
        "The host's name or address for clients. Set it if clients cannot use the address of SSH.",
        "`llm_listen_address`, else `ansible_host`, else the inventory name",
    )  # fmt: skip
    board_url: Text | None = _variable(
        None, "http://kitchen.example:8000",
        "The address of the chat API as clients and the control machine use it.",
        "`board_address` with port 8000",
    )  # fmt: skip
    board_docker_options: DockerOptions = _variable(
        {}, {"registry-mirrors": ["https://mirror.example"]},
        "Options for /etc/docker/daemon.json, in addition to those that are there.",
    )  # fmt: skip
    board_images_cache: Text | None = _variable(
        None, "192.0.2.11", "The address of the host that `llm_images_cache` names.",
        "the `board_address` of that host",
    )  # fmt: skip
    board_reboot: Boolean = _variable(
        False, True,
        "Whether a [fix](boards.md) may reboot the host. If not, the run says which fix"
        " waits for the next start.",
    )  # fmt: skip
    board_reboot_timeout: WholeNumber = _variable(
        900, 1800, "Seconds until a rebooted host must answer.", ge=1
    )
    board_power_mode: PowerMode | None = _variable(
        None, "MAXN", "The power mode of a Jetson, by the name that `nvpmodel` has for it.",
        "unchanged",
    )  # fmt: skip
    board_clocks: Boolean | None = _variable(
        None, True,
        "true sets a Jetson's clocks to their maximum at every start (`jetson_clocks`); false"
        " removes that.",
        "unchanged",
    )  # fmt: skip
    board_fan: Literal["quiet", "cool"] | None = _variable(
        None, "cool", "The fan profile of a Jetson.", "unchanged"
    )
    board_zram: Boolean | None = _variable(
        None, False, "false turns off a Jetson's compressed swap, which the GPU cannot use.",
        "unchanged",
    )  # fmt: skip
    board_python_install: Boolean = _variable(
        False, True, "Whether python3.8 is installed if the host's python3 is older (JetPack 4)."
    )
    board_facts_file: FilePath | None = _variable(
        None, "/srv/facts/pi-01.json",
        "The file of the control machine that keeps the host's facts for `make plan`.",
        ".facts/HOST.json beside the inventory",
    )  # fmt: skip
    board_benchmarks_dir: FilePath | None = _variable(
        None, "/srv/benchmarks",
        "The folder of the control machine that keeps the results of benchmarks.",
        ".benchmarks/ beside the inventory",
    )  # fmt: skip
    board_catalogue_dir: FilePath | None = _variable(
        None, "/srv/catalogues",
        "The folder of the control machine with models.yml, engines.yml and boards.yml.",
        "the project's folder",
    )  # fmt: skip
    board_secrets_dir: FilePath | None = _variable(
        None, "/srv/keys",
        "The folder of the control machine that keeps generated keys and the clients' files.",
        ".secrets/ beside the inventory",
    )  # fmt: skip
    board_api_key_file: FilePath | None = _variable(
        None, "/srv/keys/pi-01.key", "The file of the generated key.",
        "HOST.key in `board_secrets_dir`",
    )  # fmt: skip


def _section(name: str) -> int:
    """The section of docs/variables.md that has a variable."""
    return 1 if name in ChatApiSettings.model_fields else 2 * PREFIXES.index(_prefix(name))


def _prefix(name: str) -> str:
    return f"{name.partition('_')[0]}_"


VARIABLES: Mapping[str, FieldInfo] = {
    name: Settings.model_fields[name] for name in sorted(Settings.model_fields, key=_section)
}
"""The variables by their names: of the engine, of the chat API, of the board."""


_REMOVED = {
    "board_restart_docker": "No fix restarts Docker any more. Remove the variable.",
    "llm_remote_images": "An engine has no network from which it could fetch an image. Remove the"
    " variable, and send images within the request, as data: URLs.",
}
"""Variables of earlier versions, with what to do instead."""


def check_settings(variables: Mapping[str, Any]) -> tuple[Settings, list[Problem]]:
    """Validate a host's llm_* and board_* variables, as the inventory has them.

    An empty value means the default. Returns the settings, in which an invalid variable has its
    default, and a message for each unknown or invalid variable.
    """
    values = {name: plain(value) for name, value in variables.items()}
    given = {name: value for name, value in values.items() if value is not None and value != ""}
    unknown = [name for name in values if name not in VARIABLES]
    known = {name: value for name, value in given.items() if name in VARIABLES}
    invalid: dict[str, str] = {}
    try:
        settings = Settings.model_validate(known)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            invalid.setdefault(str(each["loc"][0]), _invalid_part(each))
        settings = Settings.model_validate(
            {name: value for name, value in known.items() if name not in invalid}
        )
    return settings, [_unknown(name) for name in sorted(unknown)] + [
        _invalid(name, known[name], invalid[name]) for name in sorted(invalid)
    ]


def _unknown(name: str) -> Problem:
    if name in _REMOVED:
        return f"{name} is invalid: the project has this variable no longer. {_REMOVED[name]}"
    return (
        f"{name} is invalid: the project has no variable of this name."
        f"{did_you_mean(name, list(VARIABLES))} docs/variables.md lists all variables."
    )


def _invalid_part(error: ErrorDetails) -> str:
    """What is wrong with a part of a value; empty where the whole value is wrong."""
    reason = error.get("ctx", {}).get("error")
    return str(reason) if isinstance(reason, InvalidPartError) else ""


def _invalid(name: str, value: object, part: str) -> Problem:
    if part:
        return f"{name} is invalid: {part}"
    advice = advice_of(name)
    hint = did_you_mean(str(value), choices_of(name))
    return f"{name} is invalid: {advice.show(value)}.{hint} {advice.text}{bounds_of(name)}."


def choices_of(name: str) -> list[str]:
    """The values of a variable that has a fixed choice; empty for any other."""
    return field_choices(VARIABLES[name])


def advice_of(name: str) -> Advice:
    """What a message about the variable ends with."""
    return field_advice(VARIABLES[name])


def bounds_of(name: str) -> str:
    """The bounds of a number, as a message and docs/variables.md have them; else empty."""
    return field_bounds(VARIABLES[name])
