"""What a host may say of itself: the type and the bounds of each fact, before anything uses it.

A board can be broken, or in the hands of somebody else. What its modules return is validated here,
once, so that a wrong fact refuses that host alone. Keys that are not named here stay as they are,
and decide nothing: programs of other versions have others. Texts for people are cut, and what a
terminal could take for a command is escaped in them; other texts must be printable.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, LiteralString, NotRequired, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    with_config,
)
from pydantic_core import ErrorDetails, PydanticCustomError

# pydantic takes the TypedDict of `typing` from Python 3.12 on.
from typing_extensions import TypedDict

from edge_fleet.setting_types import plain
from edge_fleet.text import MOST_TEXT, clean_text
from edge_host.constants import PORTS
from edge_host.image_ref import ImageRef

MOST_BYTES = 8 << 20
"""Bytes of all that a host says in one result, as JSON: some hundred times what a board has."""
MOST_ITEMS = 10_000
MOST_LOG = 20_000
_SHOWN = 60
# Of a dictionary in another one, too: pydantic passes it on.
_SCHEMA = ConfigDict(strict=True, extra="allow")
_REMEDY = (
    "Look for the cause on the host, which may be broken or not yours alone, and run this again"
)
# What Ansible adds where a module did not run, or where a host cannot be reached, is among them.
_EVERY_RESULT = {
    *("changed", "failed", "msg", "diff", "invocation", "warnings", "deprecations", "skipped"),
    *("exception", "rc", "module_stdout", "module_stderr", "unreachable"),
}
_FOUND_INTERPRETER = "discovered_interpreter_"


class FactsError(Exception):
    """What is wrong with the facts of a host; a sentence or two."""


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


_STATE: TypeAdapter[Any] = TypeAdapter(State)
_RESULT: TypeAdapter[Any] = TypeAdapter(Result)


def checked_state(found: object) -> dict[str, Any]:
    """The facts of a host as the module host_info returned them. Raises FactsError."""
    return _checked(_STATE, found, "facts of the host")


def kept_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """What every result has for Ansible, of a module's result; not what only some modules return.

    Of the facts that Ansible would keep, those stay that Ansible itself has added.
    """
    # Ansible takes keys of its own out of what a module returns, and adds them afterwards.
    kept = {
        name: value
        for name, value in result.items()
        if name in _EVERY_RESULT or name.startswith("_ansible_")
    }
    facts = result.get("ansible_facts")
    if isinstance(facts, dict):
        # Which Python the host has: without it, Ansible looks for it in each task.
        found = {
            name: value for name, value in facts.items() if name.startswith(_FOUND_INTERPRETER)
        }
        if found:
            kept["ansible_facts"] = found
    return kept


def checked_result(found: object) -> dict[str, Any]:
    """The result of a change as the module release returned it. Raises FactsError."""
    return _checked(_RESULT, found, "result of the change")


def facts_problem(found: object) -> str:
    """What is wrong with facts that a file has, and what to do; empty where nothing is."""
    try:
        checked_state(plain(found))
    except FactsError as error:
        return str(error)
    return ""


def _checked(schema: TypeAdapter[Any], found: object, subject: str) -> dict[str, Any]:
    """What is found, by a schema. `subject` is what it is, for messages."""
    try:
        text = json.dumps(found, ensure_ascii=False, allow_nan=False, check_circular=False)
    except (RecursionError, TypeError, ValueError) as error:
        shown = clean_text(str(error), _SHOWN)
        raise FactsError(f"The {subject} are invalid: {shown}. {_REMEDY}.") from None
    if len(text) > MOST_BYTES:
        raise FactsError(
            f"The {subject} do not fit: {len(text)} characters, and {MOST_BYTES} is the most."
            f" {_REMEDY}."
        )
    try:
        # Names of files can have bytes that are no text.
        checked: dict[str, Any] = schema.validate_json(text.encode(errors="replace"))
    except ValidationError as error:
        raise FactsError(_sentence(error, subject)) from None
    return checked


def _sentence(error: ValidationError, subject: str) -> str:
    """The first thing that is wrong, and how many more are."""
    first = error.errors(include_url=False)[0]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    place = [clean_text(str(each), _SHOWN) for each in first["loc"] if each != "[key]"]
    if first["type"] == "lacking":
        place.append(first["ctx"]["path"])
    where = ".".join(place) or "the whole"
    if first["type"] in ("missing", "lacking"):
        return f"{where} is missing in the {subject}{more}. {_REMEDY}."
    return f"{where} is invalid in the {subject}: {_found(first)}{more}. {_REMEDY}."


_WANTED = {
    "string_pattern_mismatch": "a text of another form, without control characters,",
    "string_too_long": f"a text of at most {MOST_TEXT} characters",
    "too_long": f"at most {MOST_ITEMS} items",
    "dict_type": "a dictionary",
    "list_type": "a list",
}


def _found(error: ErrorDetails) -> str:
    """What was found, and what was expected."""
    found = error["input"]
    if isinstance(found, dict | list):
        shown = f"a {type(found).__name__} of {len(found)}"
    else:
        shown = "null" if found is None else clean_text(repr(found)[:1000], _SHOWN)
    wanted = _WANTED.get(error["type"]) or error["msg"].removeprefix("Input should be ")
    return f"{shown}, where {wanted} is expected"
