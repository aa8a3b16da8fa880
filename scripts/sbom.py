"""The software bill of materials of a release, in CycloneDX's format: the packages of the locks and
the images of engines.yml. The same sources give the same bytes.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from edge_host.image_ref import ImageRef

USED = ("api", "control")
"""Locks of what runs on boards and on the control machine; the others are for tests."""
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)((?:.*\\\n)*.*)$", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_IDS = uuid.UUID("5d1a3c1e-6f0f-4d0e-9f0b-2f7f5f3c0e11")
"""Of this project's bills of materials; made once, by chance."""


class UnpinnedError(Exception):
    """A lock or engines.yml has something without a hash; a sentence."""


def bill_of_materials(root: Path, version: str, commit: str, moment: datetime) -> str:
    """The bill of materials as JSON. `commit` and `moment` are those of the release."""
    bom = Bom(
        components=[*_packages(root), *_images(root)],
        serial_number=uuid.uuid5(_IDS, f"{version} {commit}"),
    )
    bom.metadata.timestamp = moment
    bom.metadata.component = Component(
        name="edge-llm",
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=f"edge-llm@{version}",
        properties=[Property(name="edge-llm:commit", value=commit)],
    )
    bom.register_dependency(bom.metadata.component, bom.components)
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    return f"{text}\n"


def read_lock(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """(name, version, SHA-256 of its files) of every pin of a lock."""
    for match in _PIN.finditer(text):
        yield match[1], match[2], _HASH.findall(match[3])


def _packages(root: Path) -> Iterator[Component]:
    locks: dict[tuple[str, str], list[str]] = {}
    hashes: dict[tuple[str, str], set[str]] = {}
    for path in sorted((root / "requirements").glob("*.txt")):
        for name, version, found in read_lock(path.read_text()):
            if not found:
                raise UnpinnedError(
                    f"{path.name} does not fit: {name}=={version} has no hash. Make the lock again"
                    " (requirements/README.md)"
                )
            locks.setdefault((name, version), []).append(path.stem)
            hashes.setdefault((name, version), set()).update(found)
    for (name, version), names in sorted(locks.items()):
        used = any(each in USED for each in names)
        purl = PackageURL("pypi", None, name, version)
        yield Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=str(purl),
            purl=purl,
            scope=ComponentScope.REQUIRED if used else ComponentScope.EXCLUDED,
            # A package is one of several files, so that no hash is the package's own.
            external_references=[
                ExternalReference(
                    type=ExternalReferenceType.DISTRIBUTION,
                    url=XsUri(f"https://pypi.org/project/{name}/{version}/"),
                    comment="one of these files",
                    hashes=[
                        HashType(alg=HashAlgorithm.SHA_256, content=each)
                        for each in sorted(hashes[name, version])
                    ],
                )
            ],
            properties=[Property(name="edge-llm:locks", value=",".join(names))],
        )


def _images(root: Path) -> Iterator[Component]:
    """Every image of engines.yml that has a digest; the others are refused on hosts."""
    uses: dict[str, set[str]] = {}
    for use, entry in _rows(yaml.safe_load((root / "engines.yml").read_text())):
        if entry.get("digest"):
            image = ImageRef.parse(f"{entry['image']}@{entry['digest']}")
            uses.setdefault(str(image), set()).add(use)
    for text, names in sorted(uses.items()):
        image = ImageRef.parse(text)
        digest = image.digest or ""
        qualifiers = {"repository_url": image.name} | ({"tag": image.tag} if image.tag else {})
        purl = PackageURL("oci", None, image.name.rpartition("/")[2], digest, qualifiers)
        yield Component(
            name=image.name,
            version=image.tag or digest,
            type=ComponentType.CONTAINER,
            bom_ref=str(purl),
            purl=purl,
            scope=ComponentScope.REQUIRED,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest.partition(":")[2])],
            properties=[Property(name="edge-llm:uses", value=",".join(sorted(names)))],
        )


def _rows(engines: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(what for, entry with image and digest) of engines.yml."""
    for name, entry in engines.items():
        if name == "engines":
            for engine, details in entry.items():
                yield from ((engine, row) for row in details["images"])
        else:
            yield name, entry
