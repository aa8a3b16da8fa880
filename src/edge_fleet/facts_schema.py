"""Schema of what a host may say of itself: the type and the bounds of each fact.

Keys that are not named here stay as they are, and decide nothing: programs of other versions have
others. Texts for people are cut, and what a terminal could take for a command is escaped in them;
other texts must be printable. `facts` checks what hosts say by it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, LiteralString, NotRequired, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, with_config
from pydantic_core import PydanticCustomError

# pydantic takes the TypedDict of `typing` from Python 3.12 on.
from typing_extensions import TypedDict

from edge_fleet.text import MOST_TEXT, clean_text
from edge_host.constants import PORTS
from edge_host.image_ref import ImageRef

MOST_ITEMS = 10_000
MOST_LOG = 20_000
# Of a dictionary in another one, too: pydantic passes it on.
_SCHEMA = ConfigDict(strict=True, extra="allow")


def _log(text: str) -> str:
    """Lines of a log, or of a program's message."""
    lines = text[: MOST_LOG + 1].split("\n")
    return "\n".join(clean_text(each, MOST_LOG) for each in lines)[:MOST_LOG]


def _parsed_by(parse: Callable[[str], object], form: LiteralString) -> AfterValidator:
    """Requires what a function can parse, for those who call it later."""

    def check(text: str) -> str:
        try:
            parse(text)
        except ValueError:
            raise PydanticCustomError("form", form) from None
        return text

    return AfterValidator(check)


def _with(*paths: str) -> AfterValidator:
    """Requires keys of a dictionary that is valid without them, too; in an inner one, "a.b"."""

    def check(value: Mapping[str, Any]) -> Mapping[str, Any]:
        for path in paths:
            found: Any = value
            for name in path.split("."):
                if name not in found:
                    raise PydanticCustomError("lacking", "{path}", {"path": path})
                found = found[name]
        return value

    return AfterValidator(check)


Each = TypeVar("Each")
Many = Annotated[list[Each], Field(max_length=MOST_ITEMS)]
# \p{C} has control characters, and marks that change the direction of text.
Name = Annotated[str, Field(max_length=MOST_TEXT, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]*$")]
Line = Annotated[str, AfterValidator(lambda text: clean_text(text, MOST_TEXT))]
Log = Annotated[str, AfterValidator(_log)]
Named = Annotated[dict[Name, Each], Field(max_length=MOST_ITEMS)]
Size = Annotated[int, Field(ge=0, le=1 << 60)]
Count = Annotated[int, Field(ge=0, le=1 << 32)]
Time = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Seconds = Annotated[float, Field(ge=0, le=1 << 40)]
Address = Annotated[Name, _parsed_by(ipaddress.ip_address, "an IP address")]
Image = Annotated[Name, _parsed_by(ImageRef.parse, "the reference of an image")]
L4tText = Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){2}$")]
PortNumber = Annotated[str, Field(pattern=r"^[0-9]{1,5}$")]


# What facts of earlier versions do not have is NotRequired.


class Os(TypedDict):
    id: Name | None
    version_id: Name | None
    pretty_name: NotRequired[Line | None]


class L4t(TypedDict):
    major: Count
    minor: Count
    patch: Count
    text: L4tText


class Kernel(TypedDict):
    release: Name | None
    memory_cgroup: bool | None


class Boot(TypedDict):
    words: Many[Name]
    file: Name | None
    file_words: Many[Name]
    lines: Count


class Gpu(TypedDict):
    name: Line
    memory_total: Size


class Disk(TypedDict):
    path: Name
    free: Size
    total: Size


class Power(TypedDict):
    mode: Name | None
    id: Count | None
    modes: Named[Count]


class Tuning(TypedDict):
    clocks: bool
    clocks_unit: NotRequired[bool]
    fan: Name | None


class Upgrades(TypedDict):
    unattended: bool
    held: Many[Name]


class Account(TypedDict):
    kind: Literal["user", "group"]
    name: Line
    id: Count


class Board(TypedDict):
    kind: Literal["jetson", "pi", "generic"]
    name: NotRequired[Name | None]
    model: Line | None
    arch: Name
    userland_bits: Count
    os: Os
    l4t: L4t | None
    kernel: Kernel
    boot: Boot
    cpus: Annotated[int, Field(ge=1, le=1 << 16)]
    cpu_features: NotRequired[Many[Name] | None]
    memory_total: Annotated[int, Field(ge=1, le=1 << 60)]
    zram_total: Size | None
    gpus: Many[Gpu]
    disk: Disk
    python: Name
    init: Name
    container: bool
    nvidia_runtime: Name | None
    gpu_groups: Many[Count]
    power: Power | None
    tuning: Tuning
    temperature: Annotated[float, Field(ge=-1000, le=1000)] | None
    throttled: Many[Name] | None
    desktop: Line | None
    time_synchronised: bool | None
    upgrades: Upgrades
    root: bool
    accounts: NotRequired[Many[Account] | None]
    tools: Many[Name]
    addresses: NotRequired[Many[Name]]


# Of all options of Docker, those with which others are merged.
DaemonJson = TypedDict(
    "DaemonJson",
    {
        "insecure-registries": Many[Name],
        "registry-mirrors": Many[Name],
        "live-restore": bool,
        "runtimes": Named[JsonValue],
    },
    total=False,
)


class Docker(TypedDict):
    cli: bool
    ce: bool
    packages: Many[Name]
    running: bool
    version: Name | None
    compose: Name | None
    runtimes: Many[Name]
    swarm: NotRequired[bool]
    live_restore: NotRequired[bool]
    containers: NotRequired[Count | None]
    published_registry: NotRequired[bool]
    error: Log | None
    own_registries: NotRequired[Many[Name] | None]
    daemon_json: DaemonJson | None
    daemon_json_error: Log | None


class Listener(TypedDict):
    addresses: Many[Name]
    process: Line | None
    container: Name | None
    unit: NotRequired[Name | None]


class File(TypedDict):
    sha256: Name
    mode: Name
    uid: Count
    gid: Count


class Container(TypedDict):
    id: Name
    image: Name
    status: Name
    health: Name | None
    started_at: Name
    namespace: NotRequired[Name | None]


class Containers(TypedDict):
    engine: Container | None
    api: Container | None
    network: NotRequired[Container | None]


class ReleaseFile(TypedDict):
    path: Name


class ReleaseModel(TypedDict, total=False):
    name: Name
    task: Name
    digest: Name | None
    # Releases of earlier versions have one file.
    file: Name | None
    files: Many[ReleaseFile]


class ReleaseApi(TypedDict, total=False):
    base_image: Name
    tls: bool
    listen_address: Name


class ReleaseImages(TypedDict, total=False):
    outside: dict[Image, Name] | None


class ReleasePlan(TypedDict):
    provider: NotRequired[Name]
    model: ReleaseModel
    api: NotRequired[ReleaseApi]
    images: NotRequired[ReleaseImages | None]


class Release(TypedDict):
    number: NotRequired[Count]
    plan: ReleasePlan
    rendered: NotRequired[Named[Name]]
    written: NotRequired[Named[Name | None]]


Current = Annotated[
    Release,
    _with("rendered", "written", "plan.provider", "plan.model.name", "plan.api.base_image"),
]
"""Of the current release more is read than of the one before."""


# Records that people may have edited, or a power cut has shortened: no key is required.
Journal = TypedDict(
    "Journal",
    {"from": Count | None, "to": Count, "by": Line, "since": Line, "step": Line | None},
    total=False,
)
Change = TypedDict(
    "Change",
    {
        "action": Line,
        "at": Line,
        "operator": Line | None,
        "from": Count | None,
        "to": Count | None,
        "rolled_back_to": Count | None,
        "provider": Line | None,
        "model": Line | None,
        "changed_parts": Many[Line],
        "side_by_side": bool,
        "pause_seconds": Seconds,
        "seconds": Seconds,
        "steps": Named[Seconds],
        "outcome": Line,
        "reason": Log | None,
        "log": Log | None,
        "restore_reason": Log | None,
        "restore_log": Log | None,
    },
    total=False,
)
with_config(_SCHEMA)(Change)
Result = Annotated[
    Change, _with("from", "to", "changed_parts", "side_by_side", "pause_seconds", "seconds")
]
"""The result of a change, of which `tables.change_line` makes a line."""


class Lock(TypedDict):
    by: Line
    since: Line | None
    pid: NotRequired[Count | None]


class EngineLog(TypedDict):
    layers_offloaded: Count | None
    layers_total: Count | None
    gpu_buffers: Many[Line]
    platform: Line | None
    gpu_said: Many[Line]
    gpu_reason: Name | None
    start_seconds: Seconds | None


class Deployment(TypedDict):
    files: Named[File | None]
    secrets: Named[bool]
    plain_keys: bool
    containers: Containers
    installed: NotRequired[Named[Line] | None]
    release: Current | None
    previous: Release | None
    change: Journal | None
    lock: Lock | None
    history: Many[Change]
    ollama: Named[Many[Name]]
    images: Many[Name]
    engine_log: EngineLog | None


class ModelFile(TypedDict):
    size: Size
    mtime_ns: Time
    recorded_sha256: Name | None
    bundle: Name | None


@with_config(_SCHEMA)
class State(TypedDict):
    """The facts of a host, as library/host_info.py documents them."""

    board: Board
    docker: Docker
    addresses: NotRequired[Many[Address] | None]
    ports: Annotated[dict[PortNumber, Listener | None], _with(*map(str, PORTS))]
    deployment: Deployment
    # Anybody may have put a file there, whatever its name.
    models: Annotated[dict[Line, ModelFile], Field(max_length=MOST_ITEMS)]
    unfinished: Named[Size]
