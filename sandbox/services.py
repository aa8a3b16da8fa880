"""The registry that boards pull images from, and the hub that they fetch models from."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from sandbox import authority, docker, models
from sandbox.boards import run_container, volume
from sandbox.errors import SandboxError
from sandbox.images import Image
from sandbox.instance import REGISTRY_PORT, SHARED, Instance
from sandbox.steps import Step

_REGISTRY_DATA = "edge-llm-registry"
"""Volume with the registry's data: all instances share it, so an image is pushed once."""

_MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
_READY_SECONDS = 30.0
# The sandbox is on this machine: a proxy for the outside has no business in between.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def start_registry(step: Step, instance: Instance, image: Image) -> str | None:
    """See to it that the instance's registry answers at its address."""
    words = [
        f"--ip={instance.registry_address}",
        # Docker trusts a registry without TLS on 127.0.0.0/8: this machine pushes through there.
        f"--publish=127.0.0.1::{REGISTRY_PORT}",
        f"--volume={volume(_REGISTRY_DATA, SHARED)}:/var/lib/registry",
        "--user=docker-registry",
    ]
    command = ["docker-registry", "serve", "/etc/registry.yml"]
    note = run_container(step, instance, instance.service("registry"), image, words, command)
    url = f"http://{instance.registry}/v2/"
    step.until(lambda: _status(url) == 200, f"the registry at {url}", _READY_SECONDS)
    return note


def start_hub(step: Step, instance: Instance, image: Image) -> str | None:
    """See to it that the instance's model hub answers at its address."""
    words = [
        f"--ip={instance.hub_address}",
        f"--volume={models.TREE}:/srv/models:ro",
        f"--volume={authority.folder(instance)}:/srv/certificates:ro",
        "--env=HUB_TREE=/srv/models",
        "--env=HUB_CERTIFICATES=/srv/certificates",
        "--read-only",
        "--cap-drop=ALL",
        "--cap-add=NET_BIND_SERVICE",
        "--workdir=/srv",
    ]
    command = ["python3", "-B", "hub.py"]
    note = run_container(step, instance, instance.service("hub"), image, words, command)
    url = f"http://{instance.hub_address}/health"
    step.until(lambda: _status(url) == 200, f"the model hub at {url}", _READY_SECONDS)
    return note


def publish(step: Step, instance: Instance, image: Image) -> str | None:
    """Push an image to the registry, unless it is there."""
    if digest(instance, image) is not None:
        return "already there"
    port = docker.docker("port", instance.service("registry"), f"{REGISTRY_PORT}/tcp")
    local = f"{port.splitlines()[0]}/{_repository(image)}:{image.tag}"
    docker.docker("tag", image.reference, local)
    try:
        step.run("docker", "push", local)
    finally:
        docker.docker("image", "rm", local)
    return None


def write_images(
    step: Step, instance: Instance, images: Mapping[str, Image], path: Path
) -> str | None:
    """Write down what boards pull, by digest, from this instance's registry."""
    references = {}
    for name, image in images.items():
        found = digest(instance, image)
        if found is None:
            raise SandboxError(f"The registry does not have {name}, which was pushed to it.")
        references[name] = f"{instance.registry}/{_repository(image)}@{found}"
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(references, indent=2) + "\n", encoding="utf-8")
    unfinished.rename(path)
    return None


def digest(instance: Instance, image: Image) -> str | None:
    """Digest of an image's manifest in the registry, `sha256:...`; None where it is not there."""
    request = urllib.request.Request(
        f"http://{instance.registry}/v2/{_repository(image)}/manifests/{image.tag}",
        method="HEAD",
        headers={"Accept": ", ".join(_MANIFESTS)},
    )
    try:
        with _DIRECT.open(request, timeout=10) as answer:
            found: str = answer.headers["Docker-Content-Digest"]
            return found
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise SandboxError(f"The registry answered {error.code} for {image.name}.") from error


def _repository(image: Image) -> str:
    return f"edge-llm/{image.name}"


def _status(url: str) -> int | None:
    try:
        with _DIRECT.open(url, timeout=3) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
