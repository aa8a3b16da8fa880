"""The sandbox's images: what each is made of, whether it is there, and how it gets there.

An image's tag is a hash of all that decides its content (its Dockerfile and files, its parent's
tag, versions), so `is it there` is the whole question, and a changed recipe is another image.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edge_fleet.plan.image import choose_image, pinned
from sandbox import cpu, docker, ollama
from sandbox.errors import SandboxError
from sandbox.instance import CACHE, LABEL, ROOT, SHARED
from sandbox.source import Source
from sandbox.steps import Step

_HERE = Path(__file__).resolve().parent
_SUITE = "trixie"
_ARCHIVE = "http://deb.debian.org/debian"
# What every image needs anyway is cheapest to install here, once.
_BASE_PACKAGES = "ca-certificates,curl,python3"
_OFFICIAL_BASE = "debian:13@sha256:9cc080028c43b27d2074d63a5f9caf7166d731494965616c1a6d2827a004585c"
_PULLED = CACHE / "pulled.json"
# What this machine's pip trusts, a build has to trust too: a network may sign traffic anew.
_AUTHORITIES = Path(os.environ.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt")

PUBLISHED = ("llamacpp", "ollama", "python", "registry", "monitoring")
"""Images that boards pull from the sandbox's registry."""


@dataclass(frozen=True)
class Image:
    """One image: its tag, and the Dockerfile context that makes it.

    `files` are name in the context -> content. `base` is the reference for the build argument BASE.
    `official` is a reference to pull first, where the image is only a label on that one.
    `architecture` is Debian's word for it, None for this machine's.
    """

    name: str
    tag: str
    base: str | None = None
    official: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    architecture: str | None = None

    @property
    def reference(self) -> str:
        return f"edge-llm-sandbox/{self.name}:{self.tag}"

    @property
    def there(self) -> bool:
        return docker.ours("image", self.reference, SHARED) is not None


def content_tag(files: Mapping[str, bytes], *more: str) -> str:
    """Twelve hex digits of a hash over names, contents and other words, in a fixed order."""
    digest = hashlib.sha256()
    for part in (
        *(p for name in sorted(files) for p in (name.encode(), files[name])),
        *(word.encode() for word in more),
    ):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:12]


def read_tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their path in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def official(engines: Mapping[str, Any], machine: str) -> dict[str, str]:
    """Official images that can be pulled for this machine: name -> reference with a digest.

    `engines` is the content of engines.yml. An engine without a verified digest for a generic host
    of this architecture (platform.machine()) is absent: it is built.
    """
    found = {"python": pinned(engines["api"])}
    for name in ("llamacpp", "ollama"):
        row = choose_image(engines["engines"][name], {"kind": "generic", "arch": machine}, None)
        if row is not None and row.get("digest"):
            found[name] = pinned(row)
    return found


def table(source: Source) -> dict[str, Image]:
    """All images of the sandbox, each after its parent; without what SANDBOX_CPU hides."""
    return _table(source, cpu.hidden())


def _table(source: Source, hidden: cpu.Hidden | None) -> dict[str, Image]:
    pulled: dict[str, str] = {}
    if source == "pull":
        engines = yaml.safe_load((ROOT / "engines.yml").read_text(encoding="utf-8"))
        pulled = {"base": _OFFICIAL_BASE, **official(engines, platform.machine())}
    images: dict[str, Image] = {}

    def add(name: str, parent: str | None, files: Mapping[str, bytes], *more: str) -> None:
        if name in pulled:
            files = {"Dockerfile": f"FROM {pulled[name]}\n".encode()}
            images[name] = Image(name, content_tag(files), None, pulled[name], files)
            return
        base = images[parent].reference if parent else None
        images[name] = Image(name, content_tag(files, base or "", *more), base, None, files)

    add("base", None, {}, _SUITE, _ARCHIVE, _BASE_PACKAGES)
    add("board", "base", read_tree(_HERE / "board"))
    add("python", "base", read_tree(_HERE / "images" / "python"))
    hub = {"hub.py": (_HERE / "hub.py").read_bytes()}
    add("services", "base", read_tree(_HERE / "images" / "services") | hub)
    add("registry", "services", read_tree(_HERE / "images" / "registry"))
    testing = {"forky.sources": (_HERE / "images" / "llamacpp" / "forky.sources").read_bytes()}
    add("monitoring", "base", read_tree(_HERE / "images" / "monitoring") | testing)
    llamacpp = read_tree(_HERE / "images" / "llamacpp")
    if hidden is not None:
        if "llamacpp" in pulled:
            raise SandboxError(
                "SANDBOX_CPU works with images that are built: set SANDBOX_IMAGES=build."
            )
        llamacpp["Dockerfile"] += hidden.recipe.encode()
    add("llamacpp", "base", llamacpp)
    add("ollama", "llamacpp", read_tree(_HERE / "images" / "ollama"), ollama.VERSION, ollama.GO)
    return images


def arm64() -> dict[str, Image]:
    """The images of emulated boards, each after its parent: built as `table` says, by emulation."""
    built = _table("build", None)
    images: dict[str, Image] = {}
    parents = {"base": None, "python": "base", "llamacpp": "base", "ollama": "llamacpp"}
    for name, parent in parents.items():
        base = images[parent].reference if parent else None
        tag = content_tag({}, built[name].tag, base or "", "arm64")
        images[name] = Image(f"{name}-arm64", tag, base, None, built[name].files, "arm64")
    return images


def vllm(images: Mapping[str, Image]) -> Image:
    """vLLM's image, for the tests of the engines alone: it is not one of `table`, which it takes.

    It has 5.5 GB, and is for x86-64.
    """
    lock = {"requirements.txt": (ROOT / "requirements" / "vllm.txt").read_bytes()}
    files = read_tree(_HERE / "images" / "vllm") | lock
    base = images["base"].reference
    return Image("vllm", content_tag(files, base), base, None, files)


def bootstrap(step: Step, image: Image) -> str | None:
    """Make the archive of the base image's file system with mmdebstrap, where it is needed."""
    if image.official or image.there or _archive(image).exists():
        return "not needed"
    archive = _archive(image)
    temporary = CACHE / "tmp"
    if temporary.exists():
        remove_tree(temporary)
    temporary.mkdir(parents=True)
    unfinished = archive.with_name(archive.name + ".part")
    # It mounts this machine's /dev and /sys in the new file system. In namespaces of its own, all
    # of that ends with it, however it ends. (Without root it makes namespaces itself.)
    alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
    step.run(
        *(alone if os.geteuid() == 0 else ()),
        "mmdebstrap",
        "--variant=minbase",
        "--format=tar",
        *([f"--architectures={image.architecture}"] if image.architecture else []),
        f"--include={_BASE_PACKAGES}",
        _SUITE,
        unfinished,
        f"deb {_ARCHIVE} {_SUITE} main",
        f"deb {_ARCHIVE} {_SUITE}-updates main",
        f"deb {_ARCHIVE}-security {_SUITE}-security main",
        env={"TMPDIR": str(temporary)},
    )
    unfinished.rename(archive)
    return None


def remove_tree(folder: Path, mounts: Path = Path("/proc/mounts")) -> None:
    """Delete a folder; one with something mounted in it is left. Raises SandboxError for that."""
    points = [line.split()[1] for line in mounts.read_text(encoding="utf-8").splitlines()]
    inside = [point for point in points if Path(point).is_relative_to(folder)]
    if inside:
        raise SandboxError(f"{inside[0]} is mounted inside {folder}: unmount it, then try again.")
    shutil.rmtree(folder)


def _archive(image: Image) -> Path:
    return CACHE / f"base-{image.tag}.tar"


def make(step: Step, image: Image) -> str | None:
    """See to it that an image is there: pulled, imported or built."""
    if image.there:
        return "already there"
    if image.official:
        _pull(step, image.official)
    files = dict(image.files)
    words = ["--force-rm", "--label", f"{LABEL}={SHARED}", "--tag", image.reference]
    archive = None
    if image.base is None and not image.official:
        # `docker import` of Docker 20 takes everything for this machine's own.
        archive = _archive(image)
        recipe = 'FROM scratch\nADD base.tar /\nCMD ["bash"]\n'
        files |= {"Dockerfile": recipe.encode(), "base.tar": archive.read_bytes()}
        if image.architecture:
            words.append(f"--platform=linux/{image.architecture}")
    if image.name.startswith("ollama") and not image.official:
        binary = ollama.BINARY_ARM64 if image.architecture else ollama.BINARY
        files["ollama"] = binary.read_bytes()
    if image.name == "vllm":
        files["ca-certificates.crt"] = _AUTHORITIES.read_bytes()
    if image.base:
        words += ["--build-arg", f"BASE={image.base}"]
    context = CACHE / f"context-{image.name}.tar"
    _write_context(context, files)
    try:
        with context.open("rb") as stdin:
            step.run("docker", "build", *words, "-", stdin=stdin)
    finally:
        context.unlink()
    if archive:
        archive.unlink()
    return None


def _pull(step: Step, reference: str) -> None:
    """Pull a reference; one that was not there before is recorded, for `down` to remove."""
    if docker.inspect("image", reference) is not None:
        return
    step.run("docker", "pull", reference)
    _PULLED.write_text(json.dumps(sorted({*pulled(), reference})))


def pulled() -> list[str]:
    """References that the sandbox pulled."""
    if not _PULLED.exists():
        return []
    references: list[str] = json.loads(_PULLED.read_text())
    return references


def _write_context(path: Path, files: Mapping[str, bytes]) -> None:
    """A build context as a tar archive, the same bytes for the same files (for the layer cache)."""
    with tarfile.open(path, "w") as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(files[name]))


def remove_all() -> int:
    """Remove the images that the sandbox built or pulled; returns how many. Raises SandboxError.

    An image goes only once its children are gone, so they are tried in rounds.
    """
    removed = 0
    while left := docker.labelled("image", SHARED):
        before = removed
        reason = ""
        for image in left:
            try:
                docker.docker("image", "rm", "-f", image)
                removed += 1
            except SandboxError as error:
                reason = str(error)
        if removed == before:
            raise SandboxError(f"{len(left)} images of the sandbox could not be removed: {reason}")
    for reference in pulled():
        if docker.inspect("image", reference) is not None:
            docker.docker("image", "rm", reference)
            removed += 1
    return removed
